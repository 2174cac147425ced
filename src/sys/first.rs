//! Whether other processes end with this one.

use std::env;
use std::fs;

/// The PID namespace of the machine (`PROC_PID_INIT_INO` in the kernel's `include/linux/proc_ns.h`).
const INITIAL: &str = "pid:[4026531836]";

/// Where systemd tells the main process of a unit its PID (`systemd.exec(5)`).
const MAIN_PROCESS: &str = "SYSTEMD_EXEC_PID";

/// Why a process that this one leaves behind would be ended with it, if it would.
pub fn takes_others_along() -> Option<&'static str> {
    let pid = std::process::id();
    if pid == 1 {
        return Some(
            "this is process 1 of its PID namespace, and the kernel kills all others there when it ends",
        );
    }
    let main = env::var(MAIN_PROCESS).is_ok_and(|number| number == pid.to_string());
    main.then_some(
        "this is the main process of a systemd unit, and systemd may end the others of the unit when it ends",
    )
}

/// Whether this process is in a PID namespace of a container, whose process 1 may end before the machine does.
pub fn is_contained() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() != INITIAL)
}
