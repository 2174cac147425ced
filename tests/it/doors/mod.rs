//! What the host's own firewall does to connections that arrive once they are redirected: rules that close a port do not
//! see it any more, and what lets in a few ports drops the sidecar's.

mod keepers;
mod opened;
mod shut;
mod unheard;

use serde_json::Value;

use crate::support::mesh::{Mesh, listening_sidecar};
use crate::support::{Family, Lab, command};

/// A sidecar for both families; the first is of this one.
fn both(lab: &Lab, family: Family) -> [Mesh; 2] {
    let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
    [Mesh::new(lab, family), Mesh::new(lab, other)]
}

/// What a report says beside the rules.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    problems: Vec<String>,
    notes: Vec<String>,
}

/// `tproxy status` beside a sidecar that listens for both families, unless there is one.
#[track_caller]
fn status(lab: &Lab) -> Said {
    let _sidecar = listening_sidecar();
    let run = lab.program().args(["status", "-o", "json"]).run();
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    let text = |finding: &Value| {
        let part = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!("{} -- {}", part("what"), part("fix"))
    };
    let all = |key: &str| report[key].as_array().expect("a list").iter().map(text).collect();
    Said { code: run.code, problems: all("problems"), notes: all("notes") }
}

impl Said {
    /// Nothing is wrong, and nothing is said of ports.
    #[track_caller]
    fn is_silent(&self) {
        assert_eq!((self.code, &self.problems), (Some(0), &Vec::new()), "{self:?}");
        assert!(!self.notes.iter().any(|note| note.contains("port")), "{self:?}");
    }

    /// One note about ports has all of this, and the exit code is that of an installation as wanted.
    #[track_caller]
    fn notes(&self, words: &[&str]) {
        assert_eq!((self.code, &self.problems), (Some(0), &Vec::new()), "{self:?}");
        let all = |note: &&String| words.iter().all(|word| note.contains(word));
        assert_eq!(self.notes.iter().filter(all).count(), 1, "{words:?}: {self:?}");
    }

    /// One problem has all of this, and the exit code says so.
    #[track_caller]
    fn fails(&self, words: &[&str]) {
        assert_eq!(self.code, Some(11), "{self:?}");
        let all = |problem: &&String| words.iter().all(|word| problem.contains(word));
        assert_eq!(self.problems.iter().filter(all).count(), 1, "{words:?}: {self:?}");
    }

    /// Does what the one problem says is to be done.
    #[track_caller]
    fn mend(&self) {
        let [problem] = self.problems.as_slice() else { panic!("one problem: {self:?}") };
        let line =
            problem.split_once("-- run '").and_then(|(_, rest)| rest.split_once('\'')).expect("a line").0;
        command::must("sh", &["-c", line]);
    }
}
