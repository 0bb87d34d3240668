//! Requests to bytes.

use super::{Condition, FRAME_LIMIT, Request, VERSION};

/// A request that does not fit a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request of {0} bytes does not fit a frame of {FRAME_LIMIT}")]
pub struct TooLong(pub usize);

impl Request {
    /// Appends the frame of this request to `out`.
    ///
    /// # Errors
    ///
    /// [`TooLong`], and `out` as it was, if it does not fit a frame.
    pub fn encode(&self, id: u32, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        out.extend([0; 4]);
        out.push(self.kind());
        put_u32(out, id);
        self.encode_payload(out);
        let length = out.len() - start - 4;
        match u32::try_from(length) {
            Ok(field) if length <= FRAME_LIMIT => {
                out.splice(start..start + 4, field.to_le_bytes());
                Ok(())
            }
            _ => {
                out.truncate(start);
                Err(TooLong(length))
            }
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Request::Hello { .. } => 1,
            Request::Run(_) => 2,
            Request::Signal { .. } => 3,
            Request::LoadModule { .. } => 4,
            Request::UnloadModule { .. } => 5,
            Request::ReadFile { .. } => 6,
            Request::WriteFile { .. } => 7,
            Request::MakeDir { .. } => 8,
            Request::Remove { .. } => 9,
            Request::List { .. } => 10,
            Request::Stream { .. } => 11,
            Request::StopStream { .. } => 12,
            Request::Sync { .. } => 13,
            Request::WaitFor { .. } => 14,
            Request::PowerOff => 15,
            Request::StartCover => 16,
            Request::Cover => 17,
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Request::Hello { time, entropy } => {
                put_u32(out, VERSION);
                put_u64(out, time.as_secs());
                put_u32(out, time.subsec_nanos());
                put_bytes(out, entropy);
            }
            Request::Run(run) => {
                put_strings(out, &run.argv);
                put_strings(out, &run.env);
                put_bytes(out, run.cwd.as_bytes());
                put_bytes(out, &run.stdin);
                put_u32(out, run.deadline_ms);
            }
            Request::Signal { run, signal } => {
                put_u32(out, *run);
                put_u32(out, signal.0);
            }
            Request::LoadModule { path, params, flags } => {
                put_bytes(out, path.as_bytes());
                put_bytes(out, params.as_bytes());
                put_u32(out, *flags);
            }
            Request::UnloadModule { name, force } => {
                put_bytes(out, name.as_bytes());
                out.push(u8::from(*force));
            }
            Request::ReadFile { path, limit } => {
                put_bytes(out, path.as_bytes());
                put_u64(out, *limit);
            }
            Request::WriteFile { path, mode, permissions, data } => {
                put_bytes(out, path.as_bytes());
                out.push(*mode as u8);
                put_u32(out, *permissions);
                put_bytes(out, data);
            }
            Request::MakeDir { path, permissions } => {
                put_bytes(out, path.as_bytes());
                put_u32(out, *permissions);
            }
            Request::Remove { path } | Request::List { path } => put_bytes(out, path.as_bytes()),
            Request::Stream { path, port } => {
                put_bytes(out, path.as_bytes());
                out.push(*port as u8);
            }
            Request::StopStream { stream } => put_u32(out, *stream),
            Request::Sync { port } => out.push(*port as u8),
            Request::WaitFor { path, condition, deadline_ms } => {
                put_bytes(out, path.as_bytes());
                let (number, value) = condition.parts();
                out.push(number);
                put_bytes(out, value);
                put_u32(out, *deadline_ms);
            }
            Request::PowerOff | Request::StartCover | Request::Cover => {}
        }
    }
}

impl Condition {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Condition::Exists => (0, &[]),
            Condition::Absent => (1, &[]),
            Condition::Equals(value) => (2, value),
            Condition::Contains(value) => (3, value),
            Condition::NotEquals(value) => (4, value),
        }
    }
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

/// A field longer than its length can say makes the frame too long by itself, which `encode` finds.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend(bytes);
}

fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    put_u32(out, u32::try_from(strings.len()).unwrap_or(u32::MAX));
    for string in strings {
        put_bytes(out, string.as_bytes());
    }
}
