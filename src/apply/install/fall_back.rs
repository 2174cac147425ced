//! What an installation does without, or by another backend, when a part of it is refused.

use super::Install;
use crate::apply::degrade::Degraded;
use crate::apply::refused::Refused;
use crate::apply::scene::Scene;
use crate::apply::warnings::Warnings;
use crate::apply::{facts, refused, translated};
use crate::backend::Backend;
use crate::backend::iptables::commit::CommitError;
use crate::backend::iptables::observe::lacks_rights;
use crate::config::values::BackendChoice;
use crate::exit::{Failure, HINT};
use crate::host::Ipv6Support;
use crate::passing::Passing;
use crate::plan::Family;

impl Install<'_> {
    /// Leaves out what was refused, if it can be left out; else does it by another way, if there is one.
    pub(super) fn go_on_after(&mut self, refused: &Refused, scene: &Scene) -> Result<(), Failure> {
        // It says nothing of what this host can do.
        if refused.is_passing() {
            return Err(refused::failure(refused, self.request.strict));
        }
        // Then nothing that they say tells what the kernel can do.
        let powerless = refused.variant().and_then(lacks_rights);
        if let Refused::Native(error) = refused
            && !self.request.strict
            && let Some(how) = self.degraded.leave_out_native(error)
        {
            self.warnings.warn(format!("{error}; the rules are installed {how}"), error.hint());
            return Ok(());
        }
        if let Refused::Iptables { place: (variant, family), error } = refused
            && let CommitError::Refused { refusal, .. } = error
            && powerless.is_none()
        {
            let strictly = self.request.strict && self.may_switch;
            if *family == Family::V6 && refusal.is_missing_family() && !strictly {
                return self.lose_ipv6(refusal.words.clone());
            }
            let may_degrade = !self.request.strict && self.backend == Backend::Iptables(*variant);
            if let Some(how) = may_degrade.then(|| self.degraded.leave_out(*family, refusal)).flatten() {
                self.warnings.warn(format!("{error}; {family} is installed {how}"), None);
                return Ok(());
            }
        }
        if let Refused::Iptables { place: (variant, _), error } = refused
            && self.may_switch
            && (error.is_final() || error.is_stuck() && self.session.lock_wait.is_over(*variant))
        {
            tracing::warn!("{error}; iptables is of no use here, so nftables is used");
            if let Some(remedy) = powerless {
                tracing::info!(target: HINT, "if iptables is to be used: {remedy}");
            }
            return self.switch(scene);
        }
        Err(refused::failure(refused, self.request.strict))
    }

    /// Begins again with the kernel's own interface. Whether there is IPv6, the programs have no say in any more.
    fn switch(&mut self, scene: &Scene) -> Result<(), Failure> {
        self.may_switch = false;
        self.warnings = Warnings::new(false);
        self.backend = Backend::Nftables;
        // Its programs are asked for nothing any more but for what has to go.
        self.session.choice = BackendChoice::Nftables;
        self.degraded = Degraded::new(&self.request.config);
        self.facts.ipv6 = self.interfaces.ipv6_support();
        self.facts.docker_dns = scene.has_docker_dns(self.backend);
        let config = &self.request.config;
        let (translated, translating) = translated::find(config, &self.facts, scene, self.backend);
        self.facts.translated = translated;
        if let Some(warning) = translated::warning(&translating) {
            self.warnings.warn(warning, None);
        }
        self.check_ipv6().map(drop)
    }

    pub(super) fn lose_ipv6(&mut self, why: String) -> Result<(), Failure> {
        if self.request.strict {
            return Err(facts::no_ipv6(&why));
        }
        self.warnings.warn(format!("IPv6 traffic is not redirected: {why}"), None);
        self.degraded.lose_ipv6(&why);
        self.facts.ipv6 = Ipv6Support::Unavailable(why);
        Ok(())
    }
}
