//! What `tproxy verify -o json` said.

use serde_json::Value;

use crate::support::{Lab, Run};

/// A run, read.
pub struct Said {
    pub run: Run,
    pub json: Value,
}

/// Runs it with further flags.
#[track_caller]
pub fn verify(lab: &Lab, flags: &[&str]) -> Said {
    let run = lab.program().args(["verify", "-o", "json"]).args(flags).run();
    let json = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    Said { run, json }
}

impl Said {
    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.json["checks"].as_array().expect("a list of checks").iter()
    }

    /// `family id` of everything with a status, in order, each once.
    pub fn with_status(&self, status: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let checks = self.checks().filter(|check| check["status"] == status);
        let mut names: Vec<String> =
            checks.map(|check| format!("{} {}", text(&check["family"]), text(&check["id"]))).collect();
        names.sort();
        names.dedup();
        names
    }

    /// How many checks of an id there are.
    pub fn count(&self, id: &str) -> usize {
        self.checks().filter(|check| check["id"] == id).count()
    }

    /// What the checks of an id rest on, each kind once.
    pub fn evidence(&self, id: &str) -> Vec<String> {
        let words = |check: &Value| {
            let all = check["evidence"].as_array().expect("a list").iter();
            all.map(|one| one.as_str().expect("a word")).collect::<Vec<_>>().join("+")
        };
        let mut kinds: Vec<String> = self.checks().filter(|check| check["id"] == id).map(words).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// The checks of a family with this id, of which there is one at least.
    #[track_caller]
    pub fn all(&self, family: &str, id: &str) -> Vec<&Value> {
        let all: Vec<_> =
            self.checks().filter(|check| check["family"] == family && check["id"] == id).collect();
        assert!(!all.is_empty(), "{:#}", self.json);
        all
    }

    /// The only check of a family with this id.
    #[track_caller]
    pub fn one(&self, family: &str, id: &str) -> &Value {
        let mut all = self.checks().filter(|check| check["family"] == family && check["id"] == id);
        let one = all.next().expect("such a check");
        assert!(all.next().is_none(), "{:#}", self.json);
        one
    }

    pub fn method(&self) -> &str {
        self.json["method"].as_str().expect("a method")
    }

    /// Everything is as it should be, and was tested.
    #[track_caller]
    pub fn all_pass(&self) {
        let rest: Vec<_> = self.checks().filter(|check| check["status"] != "pass").collect();
        assert!(rest.is_empty(), "{rest:#?}\n{}", self.run.stderr);
        assert_eq!(self.run.code, Some(0), "{}", self.run.stderr);
        assert!(self.checks().all(|check| check["cause"].is_null() && check["next"].is_null()));
    }

    /// Exactly these fail, each with a cause and a next step.
    #[track_caller]
    pub fn fails(&self, wanted: &[&str]) {
        assert_eq!(self.with_status("fail"), wanted, "{:#}\n{}", self.json, self.run.stderr);
        assert_eq!(self.run.code, Some(12), "{}", self.run.stderr);
        for check in self.checks().filter(|check| check["status"] == "fail") {
            for key in ["target", "expected", "happened", "cause", "next"] {
                assert!(check[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {check:#}");
            }
        }
    }

    /// Some key of the first failure holds a text.
    #[track_caller]
    pub fn because(&self, key: &str, text: &str) {
        let failed = self.checks().find(|check| check["status"] == "fail").expect("a failure");
        assert!(failed[key].as_str().is_some_and(|said| said.contains(text)), "{text}: {failed:#}");
    }
}
