//! The rules' own counters, as a second witness beside connection tracking. Pure.
//!
//! What a counter can say is limited. A redirecting rule counts exactly the packets that it redirects, and of each
//! connection the first one only. So if it counted fewer packets than were redirected to its port, some of them were
//! redirected by somebody else's rule: that is proof. If it counted as many or more, our packets may be among them,
//! or all of it may be traffic of others: on a host in use that cannot be told apart. So counters never decide what
//! connection tracking knows of each single packet; they confirm it, or say by whom it was not done.

use super::check::{Evidence, Goal, Outcome, Status};
use crate::plan::Family;
use crate::sidecar::Channel;
use crate::status::model::Hits;

/// What rules have counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// Of each family, where families are counted apart.
    pub families: Vec<(Family, Hits)>,
    /// Of both.
    pub all: Hits,
}

impl Counted {
    /// What led to one goal, of one family if that is known, else of both (`None`).
    fn to(&self, goal: Goal, family: Family) -> (Option<u64>, Option<Family>) {
        let of = |hits: &Hits| match goal {
            Goal::Port(Channel::Outbound) => hits.outbound,
            Goal::Port(Channel::Inbound) => hits.inbound,
            Goal::Dns => hits.dns,
            Goal::Past => None,
        };
        let apart = self.families.iter().find(|(of, _)| *of == family).and_then(|(_, hits)| of(hits));
        match apart {
            Some(packets) => (Some(packets), Some(family)),
            None => (of(&self.all), None),
        }
    }
}

/// Compares what rules counted before all probes and after them with what connection tracking says was redirected.
pub fn confirm(before: &Counted, after: &Counted, outcomes: &mut [Outcome]) {
    let tracked = |outcome: &Outcome| {
        outcome.status == Status::Pass
            && outcome.check.goal != Goal::Past
            && outcome.evidence == [Evidence::Conntrack]
    };
    // Each was sent once at least, so that is the least that must have been counted.
    let sent: Vec<(Goal, Family)> =
        outcomes.iter().filter(|outcome| tracked(outcome)).map(|o| (o.check.goal, o.check.family)).collect();
    for outcome in outcomes.iter_mut().filter(|outcome| tracked(outcome)) {
        let (goal, family) = (outcome.check.goal, outcome.check.family);
        let (then, _) = before.to(goal, family);
        let (now, of) = after.to(goal, family);
        // Counters that went backwards were set to zero, or are those of other rules.
        let Some(more) = now.and_then(|now| now.checked_sub(then.unwrap_or(0))) else { continue };
        let least = sent.iter().filter(|sent| sent.0 == goal && of.is_none_or(|of| of == sent.1)).count();
        if usize::try_from(more).is_ok_and(|more| more < least) {
            let by = if more == 0 { "not by a rule of ours" } else { "not always by a rule of ours" };
            let happened = &outcome.happened;
            outcome.happened = format!("{happened}, but {by}: they counted {more} of {least}");
        } else {
            outcome.evidence.push(Evidence::Counters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::check::{Check, Id, Probe};

    fn outcome(family: Family, goal: Goal) -> Outcome {
        let (target, expected) = (String::new(), String::new());
        let probe = Probe::Nothing(String::new());
        Outcome {
            check: Check { id: Id::Outbound, family, target, probe, goal, expected },
            status: Status::Pass,
            happened: "it did".to_owned(),
            evidence: vec![Evidence::Conntrack],
            cause: None,
            next: None,
        }
    }

    const OUT: Goal = Goal::Port(Channel::Outbound);

    fn outbound(packets: u64) -> Hits {
        Hits { outbound: Some(packets), ..Hits::default() }
    }

    fn apart(four: u64, six: u64) -> Counted {
        let families = vec![(Family::V4, outbound(four)), (Family::V6, outbound(six))];
        Counted { families, all: outbound(four + six) }
    }

    fn together(packets: u64) -> Counted {
        Counted {
            families: Family::BOTH.map(|family| (family, Hits::default())).into(),
            all: outbound(packets),
        }
    }

    /// What is said of each of two probes, one of each family.
    fn said(before: &Counted, after: &Counted) -> Vec<String> {
        let mut outcomes = Family::BOTH.map(|family| outcome(family, OUT));
        confirm(before, after, &mut outcomes);
        let words = |outcome: &Outcome| {
            let evidence: Vec<_> = outcome.evidence.iter().map(|evidence| evidence.name()).collect();
            format!("{} {}", evidence.join("+"), outcome.happened)
        };
        outcomes.iter().map(words).collect()
    }

    #[test]
    fn what_was_counted_confirms() {
        assert_eq!(said(&apart(5, 7), &apart(6, 9)), ["conntrack+counters it did"; 2]);
        assert_eq!(said(&together(5), &together(7)), ["conntrack+counters it did"; 2]);
    }

    #[test]
    fn what_was_not_counted_was_somebody_elses() {
        let one = said(&apart(5, 7), &apart(6, 7));
        assert_eq!(one[0], "conntrack+counters it did");
        assert_eq!(one[1], "conntrack it did, but not by a rule of ours: they counted 0 of 1");
        let some = "conntrack it did, but not always by a rule of ours: they counted 1 of 2";
        assert_eq!(said(&together(5), &together(6)), [some; 2]);
    }

    #[test]
    fn counters_that_are_new_or_gone_say_nothing() {
        assert_eq!(said(&apart(5, 7), &apart(0, 0)), ["conntrack it did"; 2]);
        assert_eq!(said(&apart(5, 7), &Counted::default()), ["conntrack it did"; 2]);
    }

    #[test]
    fn what_is_not_to_be_redirected_is_not_counted() {
        let mut past = [outcome(Family::V4, Goal::Past)];
        confirm(&apart(5, 7), &apart(9, 9), &mut past);
        assert_eq!(past[0].evidence, [Evidence::Conntrack]);
    }
}
