//! Devices that come and go while the guest runs.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{Error, Vm};
use crate::work::Cancel;

impl Vm {
    /// Plugs a device in: `driver` is what QEMU calls it, `id` what it is called from now on, and `options` its properties.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where QEMU has no such device, or nowhere to plug it in.
    pub fn plug(
        &mut self,
        driver: &str,
        id: &str,
        options: &Map<String, Value>,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut arguments = options.clone();
        arguments.insert("driver".to_owned(), driver.into());
        arguments.insert("id".to_owned(), id.into());
        self.qmp("device_add", Value::Object(arguments), deadline, cancel).map(drop)
    }

    /// Pulls a device out, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where QEMU would not; [`Error::Deadline`] where the guest does not let it go.
    pub fn unplug(&mut self, id: &str, deadline: Instant, cancel: &Cancel) -> Result<(), Error> {
        self.qmp("device_del", json!({ "id": id }), deadline, cancel)?;
        self.event(deadline, cancel, |event, data| {
            (event == "DEVICE_DELETED" && data["device"] == id).then_some(())
        })
    }
}
