//! How much memory a command takes.

use std::fs;
use std::process::{Command, Stdio};

/// The most memory a command ever had resident, in KiB, without its children: read from `/proc` until it is gone.
pub fn peak_memory(command: &mut Command) -> Result<u64, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let status = format!("/proc/{}/status", child.id());
    let exe = format!("/proc/{}/exe", child.id());
    let program = fs::canonicalize(command.get_program()).map_err(|e| e.to_string())?;
    let mut peak = 0;
    loop {
        // Until the exec it is a copy of this program.
        if fs::read_link(&exe).is_ok_and(|path| path == program) {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let seen = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let seen = seen.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
            peak = peak.max(seen.unwrap_or(0));
        }
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return if status.success() && peak > 0 { Ok(peak) } else { Err(format!("memory: {status}")) };
        }
    }
}
