//! The acts, one after the other.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::addresses::{far, gate, near};
use super::firewall::{self, Snapshot};
use super::load::{self, Outcome};
use super::stage::{RIGHTS, Stage};
use super::talk::{self, Greeter, Notes};
use super::wanted::{RESOLV_CONF, Wanted};
use super::{call_off, go_on};
use crate::apply::{self, DryRun, Format, InstallRequest, UninstallRequest};
use crate::exit::{Exit, Failure};
use crate::plan::Family;
use crate::present::demo::{self as show, Answer, Flow, Lookup, Receipt, Style, Way};
use crate::sidecar::forward::{Forwarder, Seen};
use crate::sidecar::{Channel, Port, Sidecar};
use crate::stdout::{kept, print};
use crate::sys::rights;

/// Where the shop and the app take connections, and a DNS server questions.
const SHOP: u16 = 80;
const APP: u16 = 8080;
const DNS: u16 = 53;

/// A name that only the sidecar knows.
const NAME: &str = "shop.mesh";

/// Between the beginnings of two connections.
const EVERY: Duration = Duration::from_millis(1);

/// How many connections begin before the first upgrade, between two, and after the last one.
const BATCH: usize = 150;

/// How long a batch may take; on an idle machine it is [`BATCH`] times [`EVERY`].
const BATCH_PATIENCE: Duration = Duration::from_secs(10);

fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(Exit::Failed, format!("{what}: {error}"))
}

/// Everything that is at work.
pub struct Play {
    style: Style,
    stage: Stage,
    notes: Arc<Notes>,
    clean: Snapshot,
    _servers: [Sidecar; 2],
}

/// What was said and noted while everybody talked.
struct Talk {
    flows: Vec<Flow>,
    lookup: Lookup,
    seen: Vec<Seen>,
}

impl Play {
    /// Builds the hosts, starts who is at work on them, and shows the picture.
    ///
    /// # Errors
    /// Something of that cannot be had here.
    pub fn prepare(style: Style) -> Result<Self, Failure> {
        print(&show::title(style))?;
        let stage = Stage::build()?;
        let servers: Vec<_> =
            stage.cast.families.iter().map(|family| format!("nameserver {}\n", far(*family))).collect();
        std::fs::write(RESOLV_CONF, servers.concat())
            .map_err(failed("host A cannot list its DNS servers"))?;
        let strangers = firewall::strangers();
        let notes = Arc::new(Notes::default());
        let servers = serve(&stage, &notes).map_err(|error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let failure = failed("the servers cannot be started")(error);
            if denied { failure.hint(rights::remedy(&RIGHTS)) } else { failure }
        })?;
        print(&show::picture(style, &stage.cast, strangers))?;
        Ok(Self { style, clean: Snapshot::take()?, stage, notes, _servers: servers })
    }

    /// Nothing is installed.
    pub fn before(&self) -> Result<(), Failure> {
        print(&show::heading(self.style, "1. Before: everybody talks directly"))?;
        self.show(&self.talk()?, &[Way::Straight, Way::Straight])
    }

    /// Everything is.
    pub fn install(&self) -> Result<(), Failure> {
        print(&show::heading(self.style, "2. Install: everybody talks through the sidecar"))?;
        self.bring(false)?;
        self.show(&self.talk()?, &[Way::Sidecar(Channel::Outbound), Way::Sidecar(Channel::Inbound)])
    }

    /// Something else is, and then the former again, while connections begin all the time.
    pub fn upgrade(&self) -> Result<(), Failure> {
        print(&show::heading(self.style, "3. Upgrade, while the app opens a connection every millisecond"))?;
        let targets: Vec<_> =
            self.stage.cast.families.iter().map(|family| SocketAddr::new(far(*family), SHOP)).collect();
        let stop = &AtomicBool::new(false);
        let (tell, begun) = channel();
        let (upgraded, outcomes) = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                self.stage.as_app(move || {
                    load::run(&targets, EVERY, stop, |count| {
                        if count % BATCH == 0 {
                            // Nobody waits any more once the upgrades are over.
                            let _ = tell.send(());
                        }
                    })
                })
            });
            let upgraded = self.upgrades(&begun);
            stop.store(true, Ordering::SeqCst);
            (upgraded, load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        upgraded?;
        go_on()?;
        let outcomes: Vec<Outcome> = outcomes.map_err(failed("no load can be made"))?;
        let noted: HashMap<_, _> = self.notes.take().iter().filter_map(talk::connection).collect();
        let tally = load::tally(&outcomes, &noted);
        print(&show::tally(self.style, &tally))?;
        if tally.is_clean() { Ok(()) } else { Err(call_off("connections did not reach the sidecar")) }
    }

    fn upgrades(&self, begun: &Receiver<()>) -> Result<(), Failure> {
        let batch = || {
            while begun.try_recv().is_ok() {}
            // A load that ended early has its reasons, and they are counted.
            let _ = begun.recv_timeout(BATCH_PATIENCE);
            go_on()
        };
        batch()?;
        self.bring(true)?;
        batch()?;
        self.bring(false)?;
        batch()
    }

    /// Nothing is installed again, and nothing else is different either.
    pub fn uninstall(&self) -> Result<(), Failure> {
        print(&show::heading(self.style, "4. Uninstall: everybody talks directly again"))?;
        print(&show::command(self.style, "uninstall", &[]))?;
        let config = self.wanted(false)?.config;
        let request = UninstallRequest {
            config,
            dry_run: DryRun::Off,
            format: Format::Json,
            adopt: false,
            force: false,
        };
        self.receipt(|| apply::uninstall(&request))?;
        let after = Snapshot::take()?;
        let changes = after.changes_since(&self.clean);
        let talk = self.talk()?;
        print(&show::flows(self.style, &talk.flows))?;
        print(&show::firewall(self.style, &changes, after.size()))?;
        expect(&talk.flows, &[Way::Straight, Way::Straight])?;
        if changes.is_empty() { Ok(()) } else { Err(call_off("the firewall is not as it was before")) }
    }

    fn wanted(&self, ssh_excluded: bool) -> Result<Wanted, Failure> {
        Wanted::new(&self.stage.cast, ssh_excluded)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
    }

    fn bring(&self, ssh_excluded: bool) -> Result<(), Failure> {
        let Wanted { config, flags } = self.wanted(ssh_excluded)?;
        print(&show::command(self.style, "install", &flags))?;
        let request = InstallRequest {
            config,
            written: None,
            dry_run: DryRun::Off,
            format: Format::Json,
            adopt: false,
            strict: false,
            verify: false,
            confirm: None,
        };
        self.receipt(|| apply::install(&request))
    }

    /// Does something and prints what it has to say, but shorter.
    fn receipt(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let begun = Instant::now();
        let (done, said) = kept(work);
        done?;
        print(&show::receipt(self.style, &Receipt::read(&said), begun.elapsed()))
    }

    fn show(&self, talk: &Talk, expected: &[Way]) -> Result<(), Failure> {
        print(&show::flows(self.style, &talk.flows))?;
        print(&show::lookup(self.style, &talk.lookup))?;
        print(&show::seen(self.style, &talk.seen))?;
        expect(&talk.flows, expected)
    }

    /// Lets everybody talk to everybody once.
    fn talk(&self) -> Result<Talk, Failure> {
        go_on()?;
        self.notes.take();
        let families = &self.stage.cast.families;
        let nobody = failed("nobody can be the app");
        let (mut asked, mut called) = (Vec::new(), Vec::new());
        for &family in families {
            let server = SocketAddr::new(far(family), DNS);
            let answer = self.stage.as_app(|| talk::look_up(NAME, server, family)).map_err(&nobody)?;
            let found = answer.as_ref().ok().and_then(|(_, found)| *found);
            asked.push((family, answer));
            // A name that nobody knows is no reason not to call.
            let shop = SocketAddr::new(found.unwrap_or_else(|| far(family)), SHOP);
            let app = SocketAddr::new(near(family), APP);
            let out = self.stage.as_app(|| talk::call(shop)).map_err(&nobody)?;
            let back = self.stage.on_host_b(|| talk::call(app)).map_err(failed("host B is gone"))?;
            called.push((family, [out, back]));
        }
        let seen = self.notes.take();
        let noted: HashMap<_, _> = seen.iter().filter_map(talk::connection).collect();
        let way = |call: &io::Result<talk::Call>| match call {
            Ok(call) => talk::way(call, noted.get(&call.own)),
            Err(error) => Way::Lost(error.to_string()),
        };
        let ways =
            |index: usize| called.iter().map(|(family, calls)| (*family, way(&calls[index]))).collect();
        let flows = vec![
            Flow { from: "app", to: "shop", port: SHOP, ways: ways(0) },
            Flow { from: "customer", to: "app", port: APP, ways: ways(1) },
        ];
        let by_sidecar = |own: &SocketAddr| {
            seen.iter().any(|seen| matches!(seen, Seen::Question { from, .. } if from == own))
        };
        let answers = asked.iter().map(|(family, answer)| {
            let answer =
                answer.as_ref().map(|(own, found)| Answer { by_sidecar: by_sidecar(own), found: *found });
            (*family, answer.map_err(ToString::to_string))
        });
        let lookup = Lookup { name: NAME, answers: answers.collect() };
        Ok(Talk { flows, lookup, seen })
    }
}

fn expect(flows: &[Flow], ways: &[Way]) -> Result<(), Failure> {
    let as_expected =
        flows.iter().zip(ways).all(|(flow, expected)| flow.ways.iter().all(|(_, way)| way == expected));
    if as_expected { Ok(()) } else { Err(call_off("connections took another way than they should")) }
}

/// The sidecar and the app on host A, and everybody on host B.
fn serve(stage: &Stage, notes: &Arc<Notes>) -> io::Result<[Sidecar; 2]> {
    let cast = &stage.cast;
    let (mut sidecar, mut greeters) = (Vec::new(), Vec::new());
    for &family in &cast.families {
        let (any, loopback): (IpAddr, IpAddr) = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
            Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
        };
        let tcp = |channel, port| Port::tcp(channel, cast.sidecar, SocketAddr::new(any, port), None);
        sidecar.push(tcp(Channel::Outbound, show::OUTBOUND)?);
        sidecar.push(tcp(Channel::Inbound, show::INBOUND)?);
        // Questions of a container are redirected to the address of the interface by which they come.
        let at = if cast.guest.is_some() { gate(family) } else { loopback };
        sidecar.push(Port::dns(cast.sidecar, SocketAddr::new(at, show::DNS))?);
        greeters.push(Port::tcp(Channel::Inbound, cast.app, SocketAddr::new(near(family), APP), None)?);
        stage.on_host_b(|| {
            greeters.push(Port::tcp(Channel::Inbound, 0, SocketAddr::new(far(family), SHOP), None)?);
            greeters.push(Port::dns(0, SocketAddr::new(far(family), DNS))?);
            Ok::<_, io::Error>(())
        })??;
    }
    let families = cast.families.clone();
    let names = move |name: &str| {
        if name == NAME { families.iter().copied().map(far).collect() } else { Vec::new() }
    };
    let book = notes.clone();
    let forwarder = Forwarder { uid: cast.sidecar, seen: move |seen| book.add(seen), names };
    Ok([Sidecar::start(sidecar, Arc::new(forwarder))?, Sidecar::start(greeters, Arc::new(Greeter))?])
}
