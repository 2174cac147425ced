use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

fn sh(script: &str, deadline: Duration) -> Command {
    Command::new("/bin/sh", ["-c", script], deadline)
}

/// Runs it both ways of noticing its end.
fn both(command: &Command, check: impl Fn(Result<Output, RunError>)) {
    for watch in [Watch::Pidfd, Watch::Asking] {
        check(child::run(command, watch));
    }
}

fn ok(script: &str) -> Output {
    run(&sh(script, LONG)).unwrap()
}

#[test]
fn status_and_both_outputs_are_kept_apart() {
    both(&sh("echo out; echo err >&2; exit 3", LONG), |output| {
        let output = output.unwrap();
        assert_eq!((output.code, output.signal), (Some(3), None));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.ending(), "exit status 3");
        assert!(!output.success());
    });
}

#[test]
fn a_signal_is_told() {
    both(&sh("kill -USR1 $$", LONG), |output| {
        let output = output.unwrap();
        assert_eq!((output.code, output.signal), (None, Some(libc::SIGUSR1)));
        assert_eq!(output.ending(), "killed by signal 10");
    });
}

#[test]
fn big_input_that_comes_back_does_not_block() {
    let input = (0..5_000_000u32).map(|i| i.to_le_bytes()[i as usize % 3]).collect::<Vec<_>>();
    let command = Command { stdin: input.clone(), ..Command::new("/bin/cat", [] as [&str; 0], LONG) };
    both(&command, |output| assert!(output.unwrap().stdout == input));
}

/// Whether it is started before or after.
fn released(input: &[u8]) -> Output {
    let command = Command { stdin: input.to_vec(), ..Command::new("/bin/cat", [] as [&str; 0], LONG) };
    let held = hold(&command).unwrap();
    held.release().and_then(Started::finish).unwrap()
}

#[test]
fn a_held_child_gets_all_of_its_input() {
    // As much as a pipe holds by default, as much as it can be made to hold, and more.
    for size in [0_usize, 1, 64 * 1024, 64 * 1024 + 1, 1 << 20, 40 << 20] {
        let input = (0..size).map(|i| i.to_le_bytes()[i % 3]).collect::<Vec<_>>();
        assert!(released(&input).stdout == input, "{size}");
    }
}

#[test]
fn a_child_that_never_stops_writing_has_a_deadline_too() {
    both(&sh("exec yes", SHORT), |result| {
        let error = result.unwrap_err();
        assert!(matches!(error, RunError::Deadline { alive: false, .. }), "{error:?}");
    });
}

#[test]
fn big_input_that_nobody_reads_does_not_block() {
    let command = Command { stdin: vec![b'x'; 5_000_000], ..sh("exec 0<&-; echo done", LONG) };
    both(&command, |output| assert_eq!(output.unwrap().stdout, b"done\n"));
}

#[test]
fn big_outputs_on_both_pipes_do_not_block() {
    let script = "head -c 3000000 /dev/zero; head -c 3000001 /dev/zero >&2; printf end; printf END >&2";
    both(&sh(script, LONG), |output| {
        let output = output.unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (3_000_003, 3_000_004));
        assert!(output.stdout.ends_with(b"end") && output.stderr.ends_with(b"END"));
    });
}

#[test]
fn a_child_that_closes_its_outputs_is_still_waited_for() {
    both(&sh("exec >&- 2>&-; head -c 1000000 /dev/urandom >/dev/null; exit 7", LONG), |output| {
        assert_eq!(output.unwrap().code, Some(7));
    });
}

#[test]
fn a_hanging_child_is_killed_with_its_group() {
    let script = "echo $$; sleep 1000 & echo $!; echo half >&2; echo way >&2; wait";
    both(&sh(script, SHORT), |result| {
        let error = result.unwrap_err();
        let text = error.to_string();
        assert_eq!(text, "/bin/sh did not finish within 0.2 s and was killed; its last words: half, way");
        let RunError::Deadline { output, alive, .. } = error else { panic!("{error:?}") };
        assert!(!alive);
        let pids = String::from_utf8(output.stdout).unwrap();
        let pids = pids.lines().map(|pid| pid.parse::<i32>().unwrap()).collect::<Vec<_>>();
        assert_eq!(pids.len(), 2);
        assert!(!std::path::Path::new(&format!("/proc/{}", pids[0])).exists(), "not reaped");
        assert!(dead(pids[1]), "the grandchild lives");
    });
}

/// Whether a killed process that is not our child has ended, as soon as it has.
fn dead(pid: i32) -> bool {
    let limit = Instant::now() + Duration::from_secs(20);
    while Instant::now() < limit {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, None | Some('Z' | 'X')) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn a_grandchild_with_the_pipes_does_not_hold_us() {
    both(&sh("sleep 1000 & echo $! >&2; exit 0", LONG), |output| {
        let output = output.unwrap();
        assert!(output.success());
        let pid = String::from_utf8(output.stderr).unwrap().trim().parse::<i32>().unwrap();
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it did not hold the pipes");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    });
}

#[test]
fn a_grandchild_that_never_stops_writing_does_not_hold_us() {
    both(&sh("yes & echo $! >&2; exit 0", LONG), |output| {
        let output = output.unwrap();
        assert!(output.success());
        let pid = String::from_utf8(output.stderr).unwrap();
        let pid = pid.lines().next().unwrap().parse::<i32>().unwrap();
        // Without a reader SIGPIPE ends it.
        assert!(dead(pid));
    });
}

#[test]
fn a_missing_program_is_named() {
    let error = run(&Command::new("/nowhere/iptables", ["-L"], LONG)).unwrap_err();
    assert!(matches!(error, RunError::NotFound { .. }), "{error:?}");
    assert_eq!(error.to_string(), "/nowhere/iptables was not found");
    let error = run(&Command::new("no-such-tool", ["-L"], LONG)).unwrap_err();
    assert_eq!(error.to_string(), "no-such-tool was not found");
}

#[test]
fn a_program_that_cannot_start_says_why() {
    let dir = std::env::temp_dir().join(format!("tproxy-run-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let script = dir.join("tool");
    std::fs::write(&script, "#!/nowhere/sh\n").unwrap();
    let plain = run(&Command::new(&script, ["x"], LONG)).unwrap_err();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let interpreter = run(&Command::new(&script, ["x"], LONG)).unwrap_err();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(plain, RunError::Spawn { .. }), "{plain:?}");
    assert!(plain.to_string().contains("cannot be started: Permission denied"), "{plain}");
    assert!(matches!(interpreter, RunError::Spawn { .. }), "{interpreter:?}");
}

#[test]
fn a_name_is_looked_for_in_the_fixed_path() {
    let output = run(&Command::new("sh", ["-c", "echo found"], LONG)).unwrap();
    assert_eq!(output.stdout, b"found\n");
}

#[test]
fn the_environment_is_ours_alone() {
    // Nobody but the process that runs the tests could set it.
    let command = Command {
        env: vec![("EXTRA".into(), "one two".into())],
        ..Command::new("/usr/bin/env", [] as [&str; 0], LONG)
    };
    let text = String::from_utf8(run(&command).unwrap().stdout).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with("XTABLES_")).collect::<Vec<_>>();
    lines.sort_unstable();
    assert_eq!(lines, ["EXTRA=one two", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
}

#[test]
fn the_child_leads_its_own_group() {
    let text = String::from_utf8(ok("cut -d' ' -f5 /proc/$$/stat; echo $$").stdout).unwrap();
    let lines = text.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], lines[1]);
}

#[test]
fn the_child_gets_no_descriptor_but_the_three() {
    // Descriptors that whoever started the tests left open are none of ours.
    let inherited = |fd: &i32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0");
        i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC == 0
    };
    let bequeathed = std::fs::read_dir("/proc/self/fd").unwrap();
    let bequeathed = bequeathed.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let bequeathed = bequeathed.filter(inherited).collect::<Vec<i32>>();
    let output = run(&Command::new("/bin/ls", ["-l", "/proc/self/fd"], LONG)).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut seen = Vec::new();
    for line in text.lines().filter(|line| line.contains(" -> ") && !line.contains("/fd")) {
        let (fd, _) = line.split_once(" -> ").unwrap();
        seen.push(fd.rsplit(' ').next().unwrap().parse::<i32>().unwrap());
    }
    seen.retain(|fd| *fd < 3 || !bequeathed.contains(fd));
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2], "{text}");
}

#[test]
fn parallel_runs_do_not_mix_and_are_counted() {
    let before = started();
    std::thread::scope(|scope| {
        for i in 0..8 {
            scope.spawn(move || {
                let output = ok(&format!("echo {i}; cat /proc/self/stat >/dev/null; echo {i} >&2"));
                assert_eq!(output.stdout, format!("{i}\n").as_bytes());
                assert_eq!(output.stderr, format!("{i}\n").as_bytes());
            });
        }
    });
    assert!(started() >= before + 8);
}
