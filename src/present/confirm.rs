//! What `tproxy confirm` did.

use serde_json::json;

use super::receipt::lines;

/// For people. `abandoned`: the process that would have taken the installation back had ended already.
pub fn confirmed_text(abandoned: bool) -> String {
    let doubt = "; the process that would have taken it back had ended already, so run 'tproxy status' to see whether \
                 all of it is there";
    lines(&format!("confirmed: the installation stays{}", if abandoned { doubt } else { "" }))
}

/// For programs.
pub fn confirmed_json(abandoned: bool) -> String {
    super::pretty(&json!({ "schema": 1, "action": "confirm", "confirmed": true, "abandoned": abandoned }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_say_whether_anybody_was_left_to_go_back() {
        for abandoned in [false, true] {
            let value: serde_json::Value = serde_json::from_str(&confirmed_json(abandoned)).unwrap();
            assert_eq!((&value["confirmed"], &value["abandoned"]), (&true.into(), &abandoned.into()));
            let text = confirmed_text(abandoned);
            assert!(text.starts_with("confirmed: the installation stays") && text.ends_with('\n'), "{text}");
            assert_eq!(text.contains("tproxy status"), abandoned);
        }
    }
}
