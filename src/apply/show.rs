//! Dry runs, and what a run says at its end.

use serde_json::json;

use crate::backend::Backend;
use crate::backend::firewalld::{Changes, DIRECT_XML};
use crate::backend::iptables::render;
use crate::backend::iptables::syntax::Style;
use crate::backend::iptables::tools::{self, Tools};
use crate::backend::nftables::{self, change, foreign, lower};
use crate::config::Config;
use crate::config::values::BackendChoice;
use crate::exit::{Failure, HINT};
use crate::host::{self, HostFacts, PASSTHROUGH};
use crate::plan::{self, Family, Plan};
use crate::present::{self, Beside, Part, Receipt};
use crate::status::ahead::{self, Ours};
use crate::status::model::Listening;
use crate::status::words;
use crate::stdout::print;
use crate::text::escape;
use crate::verify::Report;

use super::guard::Guard;
use super::passthrough::Passthrough;
use super::request::{Format, InstallRequest, UninstallRequest};
use super::scene::{Goal, Scene};
use super::store::{RECORD, State, Store};
use super::transaction::Session;
use super::{facts, persist, stop, translated, uninstall};

/// `install --dry-run`: the rules as kumactl prints them. Needs no root: what only root can see is assumed, and
/// said. Changes nothing at all.
pub fn install_rules(request: &InstallRequest) -> Result<(), Failure> {
    let config = &request.config;
    let mut facts = facts::collect(config, &host::interfaces()?)?;
    let looked =
        if host::is_root() { look_around(request, &mut facts) } else { Err("not run as root".to_owned()) };
    let backend = match looked {
        Ok(backend) => Some(backend),
        Err(why) => {
            tracing::info!(
                "{why}, so the live rules were not looked at; assumed: no Docker DNS in this network namespace, and \
                 every match and target available"
            );
            assumed(config)
        }
    };
    facts::require_ipv6(request, &facts)?;
    facts::require_dns(request, &facts)?;
    let plan = plan::build(config, &facts);
    warn_of_notes(&plan);
    let comments = !config.comments.disabled;
    print(&match request.format {
        Format::Json => present::plan_json(&plan, comments, backend),
        Format::Text if backend == Some(Backend::Nftables) => {
            nftables::text::replace(&lower::table(&plan, comments))
        }
        Format::Text => {
            let style = if config.verbose { Style::Long } else { Style::Short };
            render::dry_run(&plan, style, |_| comments)
        }
    })
}

/// The backend; and what the host's rules and programs add to the facts.
fn look_around(request: &InstallRequest, facts: &mut HostFacts) -> Result<Backend, String> {
    let config = &request.config;
    let tools = find_tools(config).map_err(|failure| failure.message)?;
    let old = Store::unlocked().and_then(|store| store.load()).map_err(|failure| failure.message)?;
    let mut session = Session::new(tools, config, old.as_ref(), request.adopt, false);
    let scene = session.first_look().map_err(|failure| failure.message)?;
    let both = facts::demand_ipv6(request, facts);
    let (backend, why) = session.choose(&scene, both).ok_or("no iptables was found")?;
    choice(backend, why, config.backend);
    facts.docker_dns = scene.has_docker_dns(backend);
    facts.translated = translated::find(config, facts, &scene, backend).0;
    if let Backend::Iptables(variant) = backend {
        facts::check_ipv6_tools(facts, variant, session.tools.of(variant));
    }
    Ok(backend)
}

/// The backend of a host at which nobody may look.
fn assumed(config: &Config) -> Option<Backend> {
    match config.backend {
        BackendChoice::Nftables => Some(Backend::Nftables),
        BackendChoice::Iptables => None,
        BackendChoice::Auto => {
            let none =
                find_tools(config).is_ok_and(|tools| tools.nft.v4.is_none() && tools.legacy.v4.is_none());
            none.then_some(Backend::Nftables)
        }
    }
}

/// Says by what way rules go and why.
pub fn choice(backend: Backend, why: &str, asked: BackendChoice) {
    let way = match backend {
        Backend::Iptables(variant) => format!("iptables ({variant})"),
        Backend::Nftables => backend.name().to_owned(),
    };
    match asked {
        // Which of its variants is still for us to choose.
        BackendChoice::Iptables => tracing::info!("using {way}: iptables was asked for, and {why}"),
        BackendChoice::Auto | BackendChoice::Nftables => tracing::info!("using {way}: {why}"),
    }
}

/// `install --dry-run=diff`: what would change.
pub fn install_diff(request: &InstallRequest) -> Result<(), Failure> {
    stop::unless_root(
        "run it with sudo, because only root can see the live rules that it compares with; plain --dry-run, which \
         prints the rules that there would be, needs no root",
    )?;
    let config = &request.config;
    let interfaces = host::interfaces()?;
    let mut facts = facts::collect(config, &interfaces)?;
    host::check_users(config, facts.sidecar_uid)?;
    let old = Store::unlocked()?.load()?;
    let (scene, session) = look(find_tools(config)?, config, old.as_ref(), request.adopt, false)?;
    let Some((backend, why)) = session.choose(&scene, facts::demand_ipv6(request, &facts)) else {
        return Err(tools::none_found());
    };
    choice(backend, why, config.backend);
    facts.docker_dns = scene.has_docker_dns(backend);
    facts.translated = translated::find(config, &facts, &scene, backend).0;
    if let Backend::Iptables(variant) = backend {
        facts::check_ipv6_tools(&mut facts, variant, session.tools.of(variant));
    }
    stop::if_owned(&scene)?;
    stop::if_unclaimed(&scene.iptables)?;
    stop::if_chains_in_use_elsewhere(&scene.iptables, backend)?;
    warn_of_intruders(&scene);
    warn_of_exempted(&scene, config, &facts, backend);
    facts::require_ipv6(request, &facts)?;
    facts::require_dns(request, &facts)?;
    let plan = plan::build(config, &facts);
    warn_of_notes(&plan);
    let comments = !config.comments.disabled;
    let six = plan.families.iter().any(|plan| plan.family == Family::V6);
    let passthrough = Passthrough::new(&interfaces, old.is_some_and(|old| old.added_passthrough));
    let file = persist::keep_changes(config.store_firewalld, &plan, backend, comments)?;
    let beside = beside(&passthrough, six, file);
    print_diff(&scene, &Goal::of(&plan, backend, |_| comments), &beside, request.format)
}

/// What changes beside rules.
fn beside(passthrough: &Passthrough, six: bool, file: Changes) -> Beside {
    let mut beside = Beside::default();
    if passthrough.differs(six) {
        let address = vec![format!("{PASSTHROUGH}/128")];
        let (add, remove) = if six { (address, Vec::new()) } else { (Vec::new(), address) };
        beside.addresses.push(Part { place: passthrough.interface().to_owned(), add, remove });
    }
    let Changes { add, remove } = file;
    if !(add.is_empty() && remove.is_empty()) {
        beside.files.push(Part { place: DIRECT_XML.to_owned(), add, remove });
    }
    beside
}

/// `uninstall --dry-run`: what would be removed.
pub fn uninstall_diff(request: &UninstallRequest) -> Result<(), Failure> {
    stop::unless_root("run it with sudo, because only root can see the rules that it would remove")?;
    let config = &request.config;
    let store = Store::unlocked()?;
    let old = store.load()?;
    let tools = uninstall::find_tools(config)?;
    let (scene, session) = look(tools, config, old.as_ref(), request.adopt, request.force)?;
    stop::if_owned(&scene)?;
    stop::if_unread(&scene)?;
    stop::if_no_tools(&scene, &session)?;
    stop::if_unclaimed(&scene.iptables)?;
    stop::if_chains_in_use(&scene.iptables)?;
    let record = old.as_ref().map(|_| store.path(RECORD).display().to_string());
    let passthrough = Passthrough::new(&host::interfaces()?, old.is_some_and(|old| old.added_passthrough));
    let beside = beside(&passthrough, false, persist::withdraw_changes(request.force)?);
    print_diff(&scene, &Goal::default(), &Beside { record, ..beside }, request.format)
}

fn look(
    tools: Tools,
    config: &Config,
    old: Option<&State>,
    adopt: bool,
    force: bool,
) -> Result<(Scene, Session), Failure> {
    let mut session = Session::new(tools, config, old, adopt, force);
    Ok((session.first_look()?, session))
}

fn find_tools(config: &Config) -> Result<Tools, Failure> {
    Tools::find(&config.iptables_executables, std::env::var_os("PATH").as_ref())
}

fn print_diff(scene: &Scene, goal: &Goal, beside: &Beside, format: Format) -> Result<(), Failure> {
    let steps = scene.steps(goal);
    let native = (!steps.native.is_nothing())
        .then(|| change::differences(scene.native.as_ref(), goal.native.as_ref()));
    print(&match format {
        Format::Json => present::diff_json(&steps.iptables, native.as_deref(), beside),
        Format::Text => present::diff_text(&steps.iptables, native.as_deref(), beside),
    })
}

/// Every note of a plan is a warning: something that was asked for is not done.
pub fn warn_of_notes(plan: &Plan) {
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
}

/// Rules of others inside our chains go with the chains' content; they are printed in full, so that they can be put
/// back.
pub fn warn_of_intruders(scene: &Scene) {
    for what in scene.native.as_ref().map(foreign::intruders).unwrap_or_default() {
        tracing::warn!("a foreign part of our nftables table is removed: {}", escape(&what));
    }
    for ((variant, family), own) in scene.iptables.ownership() {
        for (chain, rule) in &own.intruders {
            tracing::warn!(
                "a foreign rule in our chain is removed ({family}, {variant}): -t nat -A {} {}",
                chain.name(),
                escape(&rule.args)
            );
        }
    }
}

/// Rules of others that exempted traffic as long as they shared a chain with ours.
pub fn warn_of_exempted(scene: &Scene, config: &Config, facts: &HostFacts, backend: Backend) {
    if backend != Backend::Nftables {
        return;
    }
    for exempted in ahead::exempted(&scene.iptables, &Ours::of(config, facts)) {
        tracing::warn!(
            "a foreign rule lets traffic pass that a table of our own redirects ({} {}): {}",
            exempted.family,
            exempted.place,
            escape(&exempted.rule)
        );
        let how = exempted.flag.unwrap_or_else(|| "an option that excludes it".to_owned());
        tracing::info!(target: HINT, "to leave that traffic alone, install with {}", escape(&how));
    }
}

/// What was done.
pub fn receipt(receipt: &Receipt, format: Format) {
    tell(&match format {
        Format::Json => receipt.json(Vec::new()),
        Format::Text => receipt.text(),
    });
}

/// What was installed, how it was proved, and whether it has to be confirmed.
pub fn installed(
    receipt: &Receipt,
    unheard: &[Listening],
    proof: Option<&Report>,
    guard: Option<&Guard>,
    format: Format,
) {
    tell(&match format {
        Format::Json => {
            let proof = proof.map(|report| ("verify", present::verify_value(report)));
            let guard = guard.map(|guard| {
                ("confirm", json!({ "until": words::time(guard.until()), "log": guard.log_path() }))
            });
            let unheard = ("unheard", present::unheard_value(unheard));
            receipt.json([unheard].into_iter().chain(proof).chain(guard).collect())
        }
        Format::Text => {
            let proof = proof.map(|report| format!("\n{}", present::verify_text(report)));
            let unheard = present::unheard_text(unheard).unwrap_or_default();
            receipt.text() + &unheard + &proof.unwrap_or_default()
        }
    });
}

/// That it was done does not depend on who can be told.
pub fn tell(text: &str) {
    if let Err(failure) = print(text) {
        tracing::warn!("all is done, but {failure}");
    }
}
