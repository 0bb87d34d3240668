//! The QEMU Machine Protocol: JSON objects, a line each (QEMU: `docs/interop/qmp-spec.rst`).

use serde_json::{Value, json};

/// A QEMU's major and minor version.
pub(super) type Version = (u64, u64);

/// What QEMU says on its monitor.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// The greeting: QEMU's version.
    Greeting(Version),
    /// The answer to the command of this number: its result, or QEMU's reason for refusing.
    Answer(u64, Result<Value, String>),
    /// Something happened.
    Event(String, Value),
}

/// Writes a command as it goes over the wire.
pub(super) fn encode(id: u64, command: &str, arguments: Value) -> Vec<u8> {
    let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Reads one line; `None` where it is nothing that QMP knows.
pub(super) fn decode(line: &[u8]) -> Option<Message> {
    let mut value: Value = serde_json::from_slice(line).ok()?;
    if let Some(greeting) = value.get("QMP") {
        let part = |name| greeting["version"]["qemu"][name].as_u64();
        return Some(Message::Greeting((part("major")?, part("minor")?)));
    }
    if let Some(event) = value.get("event").and_then(Value::as_str) {
        return Some(Message::Event(event.to_owned(), value["data"].clone()));
    }
    let id = value.get("id").and_then(Value::as_u64)?;
    if let Some(error) = value.get("error") {
        return Some(Message::Answer(
            id,
            Err(error["desc"].as_str().unwrap_or("no reason given").to_owned()),
        ));
    }
    Some(Message::Answer(id, Ok(value.get_mut("return")?.take())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let greeting =
            br#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 1, "major": 10}, "package": ""}}}"#;
        assert_eq!(decode(greeting), Some(Message::Greeting((10, 1))));
        assert_eq!(decode(br#"{"QMP": {"version": {}}}"#), None);
        let event = decode(br#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"reason": "guest-reset"}}"#);
        assert_eq!(event, Some(Message::Event("SHUTDOWN".into(), json!({ "reason": "guest-reset" }))));
        assert_eq!(decode(br#"{"return": {}, "id": 7}"#), Some(Message::Answer(7, Ok(json!({})))));
        let refused = decode(br#"{"id": 1, "error": {"class": "GenericError", "desc": "no"}}"#);
        assert_eq!(refused, Some(Message::Answer(1, Err("no".into()))));
        assert_eq!(decode(b"qemu: hello"), None);
        assert_eq!(decode(b"{}"), None);
    }
}
