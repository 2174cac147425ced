//! The ways that traffic takes without any option.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use crate::support::client::connect_from;
use crate::support::lab::each_stack;
use crate::support::mesh::{APP_PORT, APP_PORT_2, Mesh};
use crate::support::{APP, Backend, SIDECAR, as_user, firewall};

each_stack! {
    fn an_application_goes_out_through_the_sidecar(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        let answer = mesh.meet(family.outside(), 443);
        assert_eq!(answer.by, "outbound");
        assert_eq!(answer.about, SocketAddr::new(family.outside(), 443).to_string());
        assert_eq!(mesh.connect(0, family.outside(), 443), "outbound", "root is no exception");
        assert_eq!(mesh.world.served(), 0);
    }

    fn a_stranger_comes_in_through_the_sidecar(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let _mesh = Mesh::new(lab, family);
        let to = SocketAddr::new(family.host(), APP_PORT);
        let answer = lab.peer().run(move || crate::support::client::connect_to(to)).expect("an answer");
        assert_eq!(answer.by, "inbound");
        assert_eq!(answer.about, to.to_string());
        assert_eq!(answer.from.ip(), family.peer());
    }

    fn an_application_reaches_itself_directly(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.host(), APP_PORT), "app");
        assert_eq!(mesh.connect(APP, family.localhost(), APP_PORT), "app");
        assert_eq!((mesh.inbound.served(), mesh.outbound.served()), (0, 0));
    }

    fn the_sidecar_goes_out_by_itself(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(SIDECAR, family.outside(), 443), "world");
        assert_eq!(mesh.outbound.served(), 0);
    }

    fn the_sidecar_reaches_its_own_machine_through_the_inbound_port(lab, backend, family) {
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(SIDECAR, family.host(), APP_PORT), "inbound");
        assert_eq!(mesh.connect(SIDECAR, family.localhost(), APP_PORT), "app");
        // What it hands over to the application comes from the passthrough address and must not come round again.
        let to = SocketAddr::new(family.host(), APP_PORT);
        let answer = as_user(SIDECAR, move || connect_from(Some(family.passthrough()), to)).expect("an answer");
        assert_eq!((answer.by.as_str(), answer.from.ip()), ("app", family.passthrough()));
        assert_eq!(mesh.inbound.served(), 1);
    }

    fn other_ports_can_be_the_sidecars(lab, backend, family) {
        let flags = ["--redirect-outbound-port", "8080", "--redirect-inbound-port", "9090"];
        lab.install(backend, &flags).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "app");
        assert_eq!(mesh.visit(lab, 443), "app");
        assert_eq!((mesh.inbound.served(), mesh.outbound.served()), (0, 0));
    }

    fn somebody_elses_rule_comes_first_unless_ours_is_inserted(lab, backend, family) {
        let theirs = format!("*nat\n-A PREROUTING -p tcp --dport 7000 -j REDIRECT --to-ports {APP_PORT_2}\n\
            -A OUTPUT -p tcp --dport 7000 -j REDIRECT --to-ports {APP_PORT_2}\nCOMMIT\n");
        firewall::restore(backend.tools(), family, &theirs);
        lab.install(backend, &[]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.visit(lab, 7000), "app");
        assert_eq!(mesh.connect(APP, family.outside(), 7000), "app");
        let insert =
            ["--redirect-inbound-insert-instead-of-append", "--redirect-outbound-insert-instead-of-append"];
        lab.install(backend, &insert).succeeds();
        assert_eq!(mesh.visit(lab, 7000), "inbound");
        assert_eq!(mesh.connect(APP, family.outside(), 7000), "outbound");
    }

    fn packets_that_make_no_sense_are_dropped_if_asked_for(lab, backend, family) {
        lab.install(backend, &["--drop-invalid-packets"]).succeeds();
        let mesh = Mesh::new(lab, family);
        let to = SocketAddr::new(family.host(), 0);
        lab.peer().run(move || send_nonsense(to)).expect("a packet is sent");
        // The connection behind it shows that the packet has arrived, and that sense still passes.
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        let dropped = if backend == Backend::Nftables { "ct state invalid" } else { "-j DROP" };
        assert_eq!(backend.packets(family, dropped), [1]);
    }

    fn logging_stops_nothing(lab, backend, family) {
        lab.install(backend, &["--iptables-logs"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        assert_eq!(mesh.visit(lab, APP_PORT), "inbound");
        let log = if backend == Backend::Nftables { "log prefix" } else { "-j LOG" };
        let logged = backend.packets(family, log);
        // One of what goes out and one of what comes in.
        assert!(logged.len() == 2 && logged.iter().all(|packets| *packets > 0), "{logged:?}");
    }

    fn after_uninstall_everything_goes_where_it_went(lab, backend, family) {
        lab.install(backend, &["--redirect-dns"]).succeeds();
        let mesh = Mesh::new(lab, family);
        assert_eq!(mesh.connect(APP, family.outside(), 443), "outbound");
        lab.uninstall(backend, &[]).succeeds();
        assert_eq!(mesh.connect(APP, family.outside(), 443), "world");
        assert_eq!(mesh.visit(lab, APP_PORT), "app");
        assert_eq!(mesh.ask(APP, family.resolver()), "resolver");
    }
}

/// A TCP header with a wrong checksum, which connection tracking calls INVALID.
fn send_nonsense(to: SocketAddr) -> io::Result<()> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
    };
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    let mut header = [0_u8; 20];
    header[..4].copy_from_slice(&[0x30, 0x39, 0x1f, 0x90]);
    (header[12], header[13], header[16]) = (0x50, 0x02, 0xff);
    sendto(socket.as_raw_fd(), &header, &SockaddrStorage::from(to), MsgFlags::empty())?;
    Ok(())
}
