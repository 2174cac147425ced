//! Connections that somebody keeps open.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, SockType, listen};

use super::listener::bound;
use super::{APP, Family, Lab, Variant, as_user, firewall};

/// Nothing here takes longer unless it never comes; the kernel asks again after 1, 3, 7 and 15 seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection with both of its ends.
pub struct Session {
    name: String,
    client: TcpStream,
    server: TcpStream,
    /// Whether the client has said all it had to say.
    half: bool,
    /// Whether the server speaks first, after what happened between.
    server_first: bool,
    /// `None`: the server has stopped listening.
    _listener: Option<TcpListener>,
}

impl Session {
    /// From a client to a listener, both made by whoever is there.
    #[track_caller]
    pub fn open(
        name: &str,
        listener: TcpListener,
        connect: impl FnOnce(SocketAddr) -> io::Result<TcpStream>,
        to: IpAddr,
    ) -> Self {
        let to = SocketAddr::new(to, listener.local_addr().expect("a port").port());
        let client = connect(to).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self::begun(name, listener, client)
    }

    /// Of a client that asked for it.
    #[track_caller]
    pub fn begun(name: &str, listener: TcpListener, client: TcpStream) -> Self {
        let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut wait, PollTimeout::from(30_000u16)).expect("a wait");
        assert_eq!(ready, 1, "{name}: the connection went somewhere else");
        let (server, _) = listener.accept().expect("a connection");
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).expect("a patience");
        }
        Self {
            name: name.to_owned(),
            client,
            server,
            half: false,
            server_first: false,
            _listener: Some(listener),
        }
    }

    /// The server takes no further connection.
    #[must_use]
    pub fn unheard(self) -> Self {
        Self { _listener: None, ..self }
    }

    /// The client says no more, and waits for what comes.
    #[must_use]
    pub fn half(mut self) -> Self {
        self.client.shutdown(Shutdown::Write).expect("a connection");
        self.half = true;
        self
    }

    /// Says something in both directions that are open.
    pub fn talk(&mut self) -> io::Result<()> {
        let Self { client, server, .. } = self;
        match (self.half, self.server_first) {
            (true, _) => say(server, client),
            (false, true) => say(server, client).and_then(|()| say(client, server)),
            (false, false) => say(client, server).and_then(|()| say(server, client)),
        }
    }
}

fn say(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    from.write_all(b"word")?;
    let mut heard = [0; 4];
    to.read_exact(&mut heard)?;
    if heard == *b"word" { Ok(()) } else { Err(io::Error::other("somebody else speaks")) }
}

/// Sessions of each kind: in and out, on a port that tests exclude and on others, within the machine, half closed; of
/// each one where the client and one where the server speaks first.
pub struct Sessions(Vec<Session>);

impl Sessions {
    /// The port that tests exclude.
    pub const EXCLUDED: &'static str = "22";

    #[track_caller]
    pub fn open(lab: &Lab, family: Family) -> Self {
        let mut all = Vec::new();
        for server_first in [false, true] {
            let mut add = |session: Session| all.push(Session { server_first, ..session });
            let any = family.any();
            let excluded = Self::EXCLUDED.parse().expect("a port");
            add(inbound(lab, "in, excluded", listener(any, excluded), family.host()).unheard());
            add(inbound(lab, "in", listener(any, 0), family.host()));
            add(inbound(lab, "in, half closed", listener(any, 0), family.host()).half());
            add(outbound(lab, "out", family.peer()));
            add(outbound(lab, "out, half closed", family.peer()).half());
            add(Session::open("within", listener(any, 0), as_app, family.host()));
            add(Session::open("loopback", listener(any, 0), as_app, family.localhost()));
            if family == Family::V4 {
                // A socket of IPv6 with a connection of IPv4.
                let both = TcpListener::bind("[::]:0").expect("listens");
                add(inbound(lab, "in, mapped", both, family.host()));
            }
        }
        Self(all)
    }

    /// Each of them carries data in both directions, in another order the next time.
    #[track_caller]
    pub fn assert_alive(&mut self, when: &str) {
        let talked = self.0.iter_mut().filter_map(|session| {
            let result = session.talk();
            session.server_first = !session.server_first;
            result
                .err()
                .map(|error| format!("{} (server first: {}): {error}", session.name, !session.server_first))
        });
        let dead: Vec<String> = talked.collect();
        assert!(dead.is_empty(), "{when}: {dead:#?}");
    }
}

/// From the neighbour to this machine.
pub fn inbound(lab: &Lab, name: &str, listener: TcpListener, to: IpAddr) -> Session {
    let far = |to| lab.peer().run(move || TcpStream::connect_timeout(&to, PATIENCE));
    Session::open(name, listener, far, to)
}

/// From an application of this machine to the neighbour.
pub fn outbound(lab: &Lab, name: &str, to: IpAddr) -> Session {
    let listener = lab.peer().run(move || {
        // Whatever else answers there for everybody.
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let rules = format!("*nat\n-I PREROUTING -d {to} -p tcp -j ACCEPT\nCOMMIT\n");
        firewall::restore(Variant::Nft, family, &rules);
        listener(to, 0)
    });
    Session::open(name, listener, as_app, to)
}

fn as_app(to: SocketAddr) -> io::Result<TcpStream> {
    as_user(APP, move || TcpStream::connect_timeout(&to, PATIENCE))
}

/// Of this family alone; port 0 is any that is free.
pub fn listener(ip: IpAddr, port: u16) -> TcpListener {
    let socket = bound(ip, port, SockType::Stream);
    listen(&socket, Backlog::MAXCONN).expect("listens");
    socket.into()
}
