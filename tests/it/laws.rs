//! A law of the design that source text can show: one module starts children and talks to the kernel without a net.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries
        .flat_map(|entry| sources(&entry.expect("an entry").path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn only_sys_starts_children_and_is_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let doors = ["process::Command", "unsafe {", "unsafe fn", "unsafe extern", "libc::fork", "libc::exec"];
    let opens =
        |line: &&str| !line.trim_start().starts_with("//") && doors.iter().any(|door| line.contains(door));
    let mut seen = 0;
    let mut broken = Vec::new();
    for path in sources(&root).into_iter().filter(|path| !path.starts_with(root.join("sys"))) {
        let text = fs::read_to_string(&path).expect("a source file");
        broken.extend(text.lines().filter(opens).map(|line| format!("{}: {}", path.display(), line.trim())));
        seen += 1;
    }
    assert!(seen > 30, "only {seen} files were looked at");
    assert!(broken.is_empty(), "{broken:#?}");
}
