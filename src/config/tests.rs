//! The laws of layers: who wins, what is reported, and that what is shown loads back.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::field::{Field, Shown};
use super::settings::{SETTINGS, Setting};
use super::{Config, Executables, File, Flag, Layers, Origin, Problems, Resolved, resolve, show};

fn file(text: impl Into<String>) -> File {
    File { name: "a.yaml".into(), text: text.into(), recorded: false }
}

fn flag(name: &str, text: &str) -> Flag {
    let setting = SETTINGS.iter().find(|setting| setting.flag == Some(name)).expect(name);
    Flag { setting, name: setting.flag.unwrap(), text: text.into() }
}

fn only_file(text: &str) -> Result<Resolved, Problems> {
    resolve(&Layers { files: vec![file(text)], ..Layers::default() })
}

fn only_flags(flags: &[(&str, &str)]) -> Result<Resolved, Problems> {
    let flags = flags.iter().map(|(name, text)| flag(name, text)).collect();
    resolve(&Layers { flags, ..Layers::default() })
}

fn only_variables(variables: &[(&str, &str)]) -> Result<Resolved, Problems> {
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    resolve(&Layers { variables, ..Layers::default() })
}

/// A value for a setting, as a flag or variable has it, that differs from the default and from its neighbours'.
fn sample(field: Field, n: u16) -> String {
    let nth = usize::from(n);
    match field {
        Field::Switch(_) => n.is_multiple_of(2).to_string(),
        // Distinct for every setting: the checks refuse equal ports.
        Field::Port(_) => (20_000 + n).to_string(),
        Field::Ports(_) => format!("{},{}", 1 + n, 7000 + n),
        Field::Networks(_) => format!("10.{}.0.0/16,fd00::{n}", n % 256),
        Field::Exclusions(_) => format!("tcp:{}:{}", 1 + n, 100_000 + u32::from(n)),
        Field::Bridges(_) => format!("br{n}+:10.{}.0.0/16", n % 256),
        Field::User(_) => ["kuma-dp", "5679", "no", "1e3", "null", "0x10", "a.b"][nth % 7].into(),
        Field::Backend(_) => ["iptables", "nftables"][nth % 2].into(),
        Field::Families(_) => ["ipv4", "dualstack"][nth % 2].into(),
        Field::File(_) => format!("/etc/{n}: #x"),
        Field::Number(_, _) => (100 + n).to_string(),
        Field::Level(_) => (n % 7).to_string(),
        Field::Pause(_) => format!("{}ms", 10 + n),
        Field::Programs(_) => {
            let programs = Executables::NAMES.map(|name| format!("{name}:/opt/{n}/{name}"));
            programs[..if n.is_multiple_of(2) { 3 } else { 6 }].join(",")
        }
        Field::Never(_) => String::new(),
    }
}

/// The same value as a file with nothing else.
fn sample_file(setting: &Setting, text: &str) -> File {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let value = match setting.field {
        Field::Exclusions(_) | Field::Bridges(_) => format!("[{}]", quoted(text)),
        Field::Ports(_) => format!("[{text}]"),
        Field::Networks(_) => format!("[{}]", text.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
        Field::Programs(_) => {
            let pairs = text.split(',').map(|pair| pair.split_once(':').unwrap());
            format!(
                "{{{}}}",
                pairs.map(|(name, path)| format!("{name}: {}", quoted(path))).collect::<Vec<_>>().join(", ")
            )
        }
        _ => quoted(text),
    };
    let mut out = String::new();
    for (depth, part) in setting.key.split('.').enumerate() {
        write!(out, "\n{}{part}:", "  ".repeat(depth)).unwrap();
    }
    file(format!("{out} {value}\n"))
}

fn shown(setting: &Setting, config: &Config) -> Shown {
    setting.field.show(&mut config.clone())
}

#[test]
fn the_later_layer_wins_for_every_setting_and_is_named() {
    for setting in SETTINGS.iter().filter(|setting| setting.usable()) {
        // 4 layers: two files, the environment, a flag; every subset of them.
        for subset in 0..16u16 {
            let there = |layer: u16| subset & (1 << layer) != 0 && (layer < 3 || setting.flag.is_some());
            let mut layers = Layers { lines: true, ..Layers::default() };
            for layer in (0..2).filter(|layer| there(*layer)) {
                let mut file = sample_file(setting, &sample(setting.field, layer));
                file.name = format!("{layer}.yaml");
                layers.files.push(file);
            }
            if there(2) {
                layers.variables.push((setting.variable(), sample(setting.field, 2)));
            }
            if there(3) {
                layers.flags.push(flag(setting.flag.unwrap(), &sample(setting.field, 3)));
            }
            let resolved = resolve(&layers).unwrap_or_else(|problems| panic!("{}: {problems}", setting.key));

            let winner = (0..4).rev().find(|layer| there(*layer));
            let mut expected = Config::default();
            // Programs are the one setting whose layers are merged, so all of them count.
            let merged = matches!(setting.field, Field::Programs(_));
            for layer in (0..4).filter(|layer| there(*layer) && (merged || Some(*layer) == winner)) {
                let items = setting.field.cut_flags(&[&sample(setting.field, layer)]);
                assert_eq!(setting.field.set(&mut expected, &items, false), []);
            }
            assert_eq!(
                shown(setting, &resolved.config),
                shown(setting, &expected),
                "{} {subset:#b}",
                setting.key
            );
            let origin = match winner {
                None => Origin::Default,
                Some(2) => Origin::Variable(setting.variable()),
                Some(3) => Origin::Flag(format!("--{}", setting.flag.unwrap())),
                Some(n) => {
                    Origin::File { name: format!("{n}.yaml"), line: Some(setting.key.split('.').count() + 1) }
                }
            };
            assert_eq!(resolved.sources.of(setting.key), origin, "{} {subset:#b}", setting.key);
        }
    }
}

#[test]
fn nothing_said_is_the_default() {
    let resolved = resolve(&Layers::default()).unwrap();
    assert_eq!(resolved.config, Config::default());
    assert!(resolved.warnings.is_empty() && resolved.notes.is_empty());
}

#[test]
fn the_default_file_changes_nothing_and_names_every_key() {
    let text = show::default_file();
    let resolved = only_file(&text).unwrap();
    assert_eq!(resolved.config, Config::default());
    for setting in SETTINGS.iter().filter(|setting| setting.usable()) {
        assert_ne!(resolved.sources.of(setting.key), Origin::Default, "{}", setting.key);
        let first = setting.doc.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        assert!(text.contains(&first), "{}", setting.key);
    }
    assert!(text.lines().all(|line| line.len() <= 110), "{text}");
}

#[test]
fn the_reference_has_every_setting_once() {
    let table = show::reference();
    for setting in SETTINGS.iter().filter(|setting| setting.usable()) {
        assert_eq!(table.matches(&format!("| `{}` |", setting.key)).count(), 1, "{}", setting.key);
        assert_eq!(table.matches(&format!("| `{}` |", setting.variable)).count(), 1, "{}", setting.key);
    }
    let columns = table.lines().filter(|line| line.starts_with('|'));
    assert!(columns.map(|line| line.replace("\\|", "").matches('|').count()).all(|count| count == 6));
}

#[test]
fn keys_match_in_any_case_and_yaml_has_its_words() {
    let text = "KUMADPUSER: 5678\nRedirect:\n  INBOUND: {Enabled: off, PORT: '15007'}\n  dns:\n    captureall: Yes\n\
                retry: {sleepBetweenRetries: 1m30s}\nipFamilyMode: IPv4\nverbose:\n\
                Redirect2:\n";
    let Problems(problems) = only_file(text).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let resolved = only_file(&text.replace("verbose:\nRedirect2:\n", "redirect2:\n")).unwrap_err();
    assert_eq!(resolved.0, ["unknown key 'redirect2' (a.yaml:8); did you mean 'redirect'?"]);
    let config = only_file(&text.replace("verbose:\nRedirect2:\n", "")).unwrap().config;
    assert_eq!(config.kuma_dp_user.map(|user| user.to_string()), Some("5678".into()));
    assert!(!config.redirect.inbound.enabled);
    assert_eq!(config.redirect.inbound.port.get(), 15007);
    assert!(config.redirect.dns.capture_all && config.redirect.dns.enabled);
    assert_eq!(config.retry.sleep_between_retries.as_secs(), 90);
    assert_eq!(config.ip_family_mode.to_string(), "ipv4");
}

#[test]
fn port_lists_come_in_three_shapes() {
    for value in ["[80, '443']", "\"80,443\"", "\n    - 80\n    - 443", "[80, \"443\"]"] {
        let config =
            only_file(&format!("redirect:\n  outbound:\n   excludePorts: {value}\n")).unwrap().config;
        let ports = config.redirect.outbound.exclude_ports.iter().map(|port| port.get()).collect::<Vec<_>>();
        assert_eq!(ports, [80, 443], "{value}");
    }
    let config = only_file("redirect: {outbound: {excludePorts: 80}}").unwrap().config;
    assert_eq!(config.redirect.outbound.exclude_ports.len(), 1);
}

#[test]
fn json_is_a_file_too() {
    let text = r#"{"kumaDPUser": "a", "redirect": {"outbound": {"excludePortsForUIDs": [1, "80,443:2"]}}, "wait": 3}"#;
    let config = only_file(text).unwrap().config;
    assert_eq!(config.redirect.outbound.exclude_ports_for_uids.len(), 2);
    assert_eq!(config.wait, 3);
}

#[test]
fn capturing_all_dns_turns_dns_on_and_says_so_if_that_was_denied() {
    let resolved = only_flags(&[("redirect-all-dns-traffic", "true")]).unwrap();
    assert!(resolved.config.redirect.dns.enabled && resolved.warnings.is_empty());
    assert_eq!(resolved.sources.of("redirect.dns.enabled"), Origin::Implied("redirect.dns.captureAll"));
    let resolved = only_flags(&[("redirect-all-dns-traffic", "true"), ("redirect-dns", "false")]).unwrap();
    assert!(resolved.config.redirect.dns.enabled);
    assert!(
        resolved.warnings[0].starts_with("--redirect-dns is false, but --redirect-all-dns-traffic is true")
    );
}

#[test]
fn only_two_flags_conflict_not_a_file_and_a_flag() {
    let both = [("redirect-dns", "true"), ("redirect-all-dns-traffic", "1")];
    let Problems(problems) = only_flags(&both).unwrap_err();
    assert!(
        problems[0]
            .starts_with("only one of '--redirect-dns' or '--redirect-all-dns-traffic' should be specified")
    );
    let layers = Layers {
        files: vec![file("redirect: {dns: {captureAll: true}}")],
        flags: vec![flag("redirect-dns", "true")],
        ..Layers::default()
    };
    assert!(resolve(&layers).unwrap().config.redirect.dns.capture_all);
}

#[test]
fn equal_ports_are_refused_where_both_are_used() {
    let Problems(problems) = only_flags(&[("redirect-inbound-port", "15001")]).unwrap_err();
    assert_eq!(
        problems,
        ["--redirect-inbound-port and redirect.outbound.port (default) are the same port, 15001; \
          each listener of the sidecar needs a port of its own"]
    );
    // Also where one of them is not used now: it is as soon as somebody turns it on.
    assert!(only_flags(&[("redirect-inbound-port", "15001"), ("redirect-inbound", "false")]).is_err());
    assert!(only_flags(&[("redirect-dns-port", "15001")]).is_err());
    assert!(only_file("redirect: {outbound: {enabled: false}, inbound: {port: 15001}}").is_err());
    let all = "redirect: {inbound: {port: 1}, outbound: {port: 1}, dns: {port: 1, enabled: true}}";
    assert_eq!(only_file(all).unwrap_err().0.len(), 1);
    // A port that is wrong in itself is not compared as well.
    let Problems(problems) =
        only_flags(&[("redirect-inbound-port", "x"), ("redirect-outbound-port", "15006")]).unwrap_err();
    assert_eq!(problems.len(), 1);
}

#[test]
fn half_a_family_of_programs_is_refused_with_its_origins() {
    let layers = Layers {
        files: vec![file("iptablesExecutables:\n  iptables: /a\n  ip6tables-save: ''\n")],
        variables: vec![("KUMA_TRANSPARENT_PROXY_IPTABLES_EXECUTABLES".into(), "iptables-save:/b".into())],
        ..Layers::default()
    };
    let Problems(problems) = resolve(&layers).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with(
        "iptablesExecutables has iptables (a.yaml:2) and iptables-save (KUMA_TRANSPARENT_PROXY_IPTABLES_EXECUTABLES) \
         but not iptables-restore; give all of iptables, iptables-save, iptables-restore or none of them"
    ), "{problems:?}");
}

#[test]
fn variables_without_the_prefix_count_where_that_is_safe() {
    let resolved = only_variables(&[("KUMA_DP_USER", "a"), ("IP_FAMILY_MODE", "ipv4")]).unwrap();
    assert_eq!(resolved.config.kuma_dp_user.map(|user| user.to_string()), Some("a".into()));
    assert_eq!(resolved.sources.of("ipFamilyMode"), Origin::Variable("IP_FAMILY_MODE".into()));
    let prefixed = [("KUMA_DP_USER", "a"), ("KUMA_TRANSPARENT_PROXY_KUMA_DP_USER", "b")];
    let resolved = only_variables(&prefixed).unwrap();
    assert_eq!(resolved.config.kuma_dp_user.map(|user| user.to_string()), Some("b".into()));
    let resolved = only_variables(&[("EXCLUDE_PORTS_FOR_IPS", "10.0.0.0/8"), ("CNI_MODE", "true")]).unwrap();
    assert_eq!(resolved.config, Config::default());
    assert_eq!(resolved.warnings.len(), 2);
    assert!(resolved.warnings[0].contains("REDIRECT_OUTBOUND_EXCLUDE_PORTS_FOR_IPS"));
}

#[test]
fn what_was_most_likely_not_meant_is_a_warning() {
    let warnings = |resolved: Result<Resolved, Problems>| resolved.unwrap().warnings.join("\n");
    let twice = [("exclude-inbound-ports", "1"), ("exclude-inbound-ports", "2")];
    assert!(
        warnings(only_flags(&twice))
            .starts_with("--exclude-inbound-ports is given 2 times and only the last")
    );
    assert_eq!(only_flags(&twice).unwrap().config.redirect.inbound.exclude_ports.len(), 1);
    let bits = only_flags(&[("exclude-outbound-ips", "10.0.0.1/8,10.0.0.1"), ("vnet", "a:10.0.0.1/8")]);
    assert_eq!(
        warnings(bits),
        "10.0.0.1/8 in --exclude-outbound-ips is the whole network 10.0.0.0/8 to the kernel; \
         write 10.0.0.1 for the one address\n\
         10.0.0.1/8 in --vnet is the whole network 10.0.0.0/8 to the kernel"
    );
    let chosen = only_file("redirect: {inbound: {includePorts: [1], excludePorts: [2]}}");
    assert!(warnings(chosen).contains("has no effect, because redirect.inbound.includePorts"));
    assert!(warnings(only_flags(&[("sleep-between-retries", "2")])).contains("counts nanoseconds"));
    let typo = [("KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABELD", "true")];
    assert!(
        warnings(only_variables(&typo))
            .ends_with("did you mean KUMA_TRANSPARENT_PROXY_REDIRECT_DNS_ENABLED?")
    );
    let chain = [("KUMA_TRANSPARENT_PROXY_REDIRECT_INBOUND_CHAIN_NAME", "X")];
    assert!(warnings(only_variables(&chain)).contains("the names of the chains are fixed"));
}

#[test]
fn ebpf_is_refused_where_it_is_wanted_and_a_note_where_it_is_not() {
    assert!(only_file("ebpf: {enabled: yes}").is_err());
    let resolved = only_file("ebpf: {enabled: false, bpffsPath: /run/kuma/bpf}").unwrap();
    assert_eq!(resolved.notes.len(), 1);
    assert!(only_variables(&[("KUMA_TRANSPARENT_PROXY_EBPF_ENABLED", "true")]).is_err());
    assert!(only_variables(&[("KUMA_TRANSPARENT_PROXY_EBPF_ENABLED", "yes")]).is_err());
    assert!(only_variables(&[("KUMA_TRANSPARENT_PROXY_EBPF_ENABLED", "false")]).is_ok());
    assert!(only_variables(&[("KUMA_TRANSPARENT_PROXY_EBPF_BPFFS_PATH", "/x")]).is_ok());
}

#[test]
fn everything_wrong_is_said_at_once_and_a_flood_is_cut() {
    let ports = (0..500).map(|n| format!("x{n}")).collect::<Vec<_>>().join(", ");
    let Problems(problems) =
        only_file(&format!("redirect: {{inbound: {{excludePorts: [{ports}]}}}}")).unwrap_err();
    assert_eq!(problems.len(), 500);
    let text = Problems(problems).to_string();
    assert!(text.starts_with("500 problems in the configuration:\n  invalid value 'x0'"), "{text}");
    assert!(text.ends_with("and 450 more"), "{text}");
}

/// A configuration made of samples, with free text where text is free.
fn configs() -> impl Strategy<Value = Config> {
    let choices = prop::collection::vec(prop::option::of(0u16..300), SETTINGS.len());
    (choices, "\\PC{1,20}", "[a-z/\u{e9}\u{202e}'\"\\\\#:, {}&*!|>%@`\u{1b}\n\t-]{1,20}").prop_map(
        |(choices, path, program)| {
            let mut layers = Layers::default();
            for (setting, n) in SETTINGS.iter().zip(choices) {
                if let (true, Some(n)) = (setting.usable(), n) {
                    layers.variables.push((setting.variable(), sample(setting.field, n)));
                }
            }
            let mut config = resolve(&layers).map(|resolved| resolved.config).unwrap_or_default();
            config.redirect.dns.resolv_config_path = path.into();
            if let Some(place) = &mut config.iptables_executables.iptables {
                *place = format!("/{}", program.trim()).into();
            }
            config
        },
    )
}

proptest! {
    #[test]
    fn what_is_shown_loads_back(config in configs()) {
        let plain = show::yaml(&config, None);
        let resolved = only_file(&plain).map_err(|problems| TestCaseError::fail(format!("{problems}\n{plain}")))?;
        prop_assert_eq!(&resolved.config, &config);
        let annotated = show::yaml(&config, Some(&resolved.sources));
        prop_assert_eq!(&only_file(&annotated).unwrap().config, &config);
    }

    #[test]
    fn no_layer_makes_it_panic(
        file in "((redirect|inbound|port|ebpf|wait|iptablesExecutables|iptables|vnet|x)?(: |:\n|\n  |\n    |\n|, |\\[|\\]|\\{|\\}|- |[0-9x'\"&*!]))*",
        variable in "\\PC{0,12}", flag_text in "\\PC{0,12}", at in 0..SETTINGS.len(),
    ) {
        let setting = &SETTINGS[at];
        let layers = Layers {
            files: vec![File { name: "f".into(), text: file, recorded: false }],
            variables: vec![(setting.variable(), variable)],
            flags: vec![Flag { setting, name: "flag", text: flag_text }],
            lines: false,
        };
        if let Err(problems) = resolve(&layers) {
            prop_assert!(!problems.0.is_empty());
            let text = problems.to_string();
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{}", text);
        }
    }
}
