//! Rule sets as other programs write them. The counters are made up: a counter that is not zero shows whether its
//! rule was left alone.

use super::Shape;

pub const DOCKER: Shape = Shape {
    v4: "*nat
:PREROUTING ACCEPT [11:660]
:POSTROUTING ACCEPT [12:720]
:DOCKER - [0:0]
[31:1860] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[7:420] -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
[5:300] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
[0:0] -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
[2:120] -A DOCKER -i docker0 -j RETURN
[9:540] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8000 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP [3:180]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
[61:3660] -A FORWARD -j DOCKER-USER
[61:3660] -A FORWARD -j DOCKER-ISOLATION-STAGE-1
[44:2640] -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[8:480] -A FORWARD -o docker0 -j DOCKER
[9:540] -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
[8:480] -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
[9:540] -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
[61:3660] -A DOCKER-ISOLATION-STAGE-1 -j RETURN
[0:0] -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
[9:540] -A DOCKER-ISOLATION-STAGE-2 -j RETURN
[61:3660] -A DOCKER-USER -j RETURN
COMMIT
",
    v6: "*nat
:DOCKER - [0:0]
[1:80] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[2:160] -A POSTROUTING -s fd00:d0c::/64 ! -o docker0 -j MASQUERADE
COMMIT
",
    native: "",
};

pub const KUBE_PROXY: Shape = Shape {
    v4: "*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-6E7XQMQ4RAYOWTTM - [0:0]
:KUBE-SEP-IT2ZTR26TO4XFPTO - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
[70:4200] -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
[80:4800] -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
[90:5400] -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
[3:180] -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
[88:5280] -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
[2:120] -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
[2:120] -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
[1:60] -A KUBE-SEP-6E7XQMQ4RAYOWTTM -s 10.244.0.3/32 -m comment --comment \"kube-system/kube-dns:dns\" -j KUBE-MARK-MASQ
[4:240] -A KUBE-SEP-6E7XQMQ4RAYOWTTM -p udp -m comment --comment \"kube-system/kube-dns:dns\" -m udp -j DNAT --to-destination 10.244.0.3:53
[5:300] -A KUBE-SEP-IT2ZTR26TO4XFPTO -p udp -m comment --comment \"kube-system/kube-dns:dns\" -m udp -j DNAT --to-destination 10.244.0.2:53
[9:540] -A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment \"kube-system/kube-dns:dns cluster IP\" -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
[50:3000] -A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
[6:360] -A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment \"kube-system/kube-dns:dns -> 10.244.0.2:53\" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-IT2ZTR26TO4XFPTO
[3:180] -A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment \"kube-system/kube-dns:dns -> 10.244.0.3:53\" -j KUBE-SEP-6E7XQMQ4RAYOWTTM
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
[1:52] -A INPUT -j KUBE-FIREWALL
[7:420] -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
[0:0] -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
[0:0] -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
[7:420] -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
",
    v6: "*nat
:KUBE-SERVICES - [0:0]
[1:80] -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
[2:160] -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
COMMIT
",
    native: "",
};

pub const UFW: Shape = Shape {
    v4: "*filter
:INPUT DROP [4:240]
:FORWARD DROP [0:0]
:ufw-after-input - [0:0]
:ufw-before-input - [0:0]
:ufw-before-output - [0:0]
:ufw-not-local - [0:0]
:ufw-user-input - [0:0]
[100:6000] -A INPUT -j ufw-before-input
[20:1200] -A INPUT -j ufw-after-input
[90:5400] -A OUTPUT -j ufw-before-output
[0:0] -A ufw-after-input -p udp -m udp --dport 137 -j ufw-not-local
[60:3600] -A ufw-before-input -i lo -j ACCEPT
[30:1800] -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[1:60] -A ufw-before-input -m conntrack --ctstate INVALID -j LOG --log-prefix \"[UFW AUDIT INVALID] \" --log-level 4
[9:540] -A ufw-before-input -j ufw-not-local
[60:3600] -A ufw-before-output -o lo -j ACCEPT
[8:480] -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
[1:60] -A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"
[7:420] -A ufw-user-input -p tcp -m tcp --dport 22 -m comment --comment \"\\'dapp_OpenSSH\\'\" -j ACCEPT
[2:120] -A ufw-user-input -p tcp -m tcp --dport 22 -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
COMMIT
",
    v6: "*filter
:ufw6-before-input - [0:0]
[10:800] -A INPUT -j ufw6-before-input
[9:720] -A ufw6-before-input -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT
[1:80] -A ufw6-before-input -m rt --rt-type 0 -j DROP
COMMIT
",
    native: "",
};

pub const FAIL2BAN: Shape = Shape {
    v4: "*filter
:f2b-sshd - [0:0]
:f2b-recidive - [0:0]
[400:24000] -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
[400:24000] -A INPUT -p tcp -j f2b-recidive
[17:1020] -A f2b-sshd -s 198.51.100.23/32 -j REJECT --reject-with icmp-port-unreachable
[3:180] -A f2b-sshd -s 203.0.113.200/32 -j REJECT --reject-with icmp-port-unreachable
[380:22800] -A f2b-sshd -j RETURN
[400:24000] -A f2b-recidive -j RETURN
COMMIT
",
    v6: "*filter
:f2b-sshd - [0:0]
[4:320] -A INPUT -p tcp -m multiport --dports 22 -j f2b-sshd
[4:320] -A f2b-sshd -s 2001:db8:bad::1/128 -j REJECT --reject-with icmp6-port-unreachable
COMMIT
",
    native: "",
};

pub const FIREWALLD: Shape = Shape {
    v4: "*raw
:PREROUTING_direct - [0:0]
:OUTPUT_direct - [0:0]
[5:300] -A PREROUTING -j PREROUTING_direct
[6:360] -A OUTPUT -j OUTPUT_direct
[1:60] -A OUTPUT_direct -p tcp -m tcp --dport 21 -j CT --helper ftp
COMMIT
*mangle
:PREROUTING_direct - [0:0]
:PREROUTING_ZONES - [0:0]
[5:300] -A PREROUTING -j PREROUTING_direct
[5:300] -A PREROUTING -j PREROUTING_ZONES
COMMIT
*nat
:PREROUTING_direct - [0:0]
:PREROUTING_ZONES - [0:0]
:PRE_public - [0:0]
:PRE_public_allow - [0:0]
:OUTPUT_direct - [0:0]
:POSTROUTING_ZONES - [0:0]
[5:300] -A PREROUTING -j PREROUTING_direct
[5:300] -A PREROUTING -j PREROUTING_ZONES
[6:360] -A OUTPUT -j OUTPUT_direct
[4:240] -A POSTROUTING -j POSTROUTING_ZONES
[5:300] -A PREROUTING_ZONES -i eth0 -g PRE_public
[5:300] -A PREROUTING_ZONES -g PRE_public
[5:300] -A PRE_public -j PRE_public_allow
[2:120] -A PRE_public_allow -p tcp -m mark --mark 0x64 -j DNAT --to-destination 192.0.2.5:8080
COMMIT
",
    v6: "*nat
:OUTPUT_direct - [0:0]
[6:480] -A OUTPUT -j OUTPUT_direct
COMMIT
",
    native: "",
};

pub const FIREWALLD_NATIVE: Shape = Shape {
    v4: "",
    v6: "",
    native: "table inet firewalld {
    set trusted { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 192.0.2.1 } }
    chain nat_PREROUTING {
        type nat hook prerouting priority dstnat + 10; policy accept;
        ip saddr @trusted tcp dport 8080 counter packets 8 bytes 480 redirect to :80
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } counter packets 100 bytes 6000 accept
        meta l4proto tcp counter packets 3 bytes 180 jump filter_IN_public
    }
    chain filter_IN_public {
        tcp dport 22 ct state new counter packets 3 bytes 180 accept comment \"kuma/mesh/transparent/proxy/not\"
    }
}
",
};

pub const LIBVIRT: Shape = Shape {
    v4: "*nat
:LIBVIRT_PRT - [0:0]
[9:540] -A POSTROUTING -j LIBVIRT_PRT
[1:60] -A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
[2:120] -A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
COMMIT
*mangle
:LIBVIRT_PRT - [0:0]
[9:540] -A POSTROUTING -j LIBVIRT_PRT
[3:984] -A LIBVIRT_PRT -o virbr0 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
COMMIT
*filter
:LIBVIRT_INP - [0:0]
[4:240] -A INPUT -j LIBVIRT_INP
[4:240] -A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 53 -j ACCEPT
COMMIT
",
    v6: "*filter
:LIBVIRT_INP - [0:0]
[4:320] -A INPUT -j LIBVIRT_INP
COMMIT
",
    native: "",
};

pub const NETAVARK: Shape = Shape {
    v4: "*nat
:NETAVARK-1D8721804F16F - [0:0]
:NETAVARK-DN-1D8721804F16F - [0:0]
:NETAVARK-HOSTPORT-DNAT - [0:0]
:NETAVARK-HOSTPORT-MASQ - [0:0]
:NETAVARK-HOSTPORT-SETMARK - [0:0]
[7:420] -A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT
[8:480] -A OUTPUT -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT
[9:540] -A POSTROUTING -j NETAVARK-HOSTPORT-MASQ
[1:60] -A POSTROUTING -s 10.88.0.0/16 -j NETAVARK-1D8721804F16F
[0:0] -A NETAVARK-1D8721804F16F -d 10.88.0.0/16 -j ACCEPT
[1:60] -A NETAVARK-1D8721804F16F ! -d 224.0.0.0/4 -j MASQUERADE
[3:180] -A NETAVARK-DN-1D8721804F16F -s 10.88.0.0/16 -p tcp -m tcp --dport 8080 -j NETAVARK-HOSTPORT-SETMARK
[4:240] -A NETAVARK-DN-1D8721804F16F -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.7:80
[7:420] -A NETAVARK-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -m comment --comment \"dnat name: podman id: 2f259bab93aa\" -j NETAVARK-DN-1D8721804F16F
[2:120] -A NETAVARK-HOSTPORT-MASQ -m comment --comment \"netavark portfw masq mark\" -m mark --mark 0x2000/0x2000 -j MASQUERADE
[3:180] -A NETAVARK-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
COMMIT
",
    v6: "",
    native: "",
};

pub const NATIVE: Shape = Shape {
    v4: "",
    v6: "",
    native: "table ip nat {
    set inside { type ipv4_addr; flags interval; elements = { 10.1.0.0/16, 192.0.2.0/24 } }
    set seen { type ipv4_addr; size 128; flags dynamic,timeout; timeout 1h; }
    map ports { type inet_service : inet_service; elements = { 8443 : 443, 8081 : 80 } }
    chain mine {
        ip saddr @inside counter packets 4 bytes 240 return
    }
    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        ip daddr @inside counter packets 6 bytes 360 jump mine
    }
}
table ip6 nat {
    set inside6 { type ipv6_addr; elements = { 2001:db8::1 } }
    chain PREROUTING {
        type nat hook prerouting priority -100; policy accept;
        ip6 saddr @inside6 tcp dport 9 counter packets 1 bytes 80 accept
    }
}
table ip filter {
    chain guard {
        type filter hook input priority filter - 1; policy accept;
        tcp dport { 22, 2222 } counter packets 0 bytes 0 accept
    }
}
",
};

/// With an expression that iptables-nft has no words for, the save leaves out the whole table.
pub const UNPRINTABLE: Shape = Shape {
    v4: "",
    v6: "",
    native: "table ip nat {
    set inside { type ipv4_addr; flags interval; elements = { 10.1.0.0/16, 192.0.2.0/24 } }
    chain mine {
        ip saddr @inside counter packets 4 bytes 240 return
        tcp dport 8081 counter packets 2 bytes 120 redirect to :80 comment \"ours, not yours\"
    }
    chain before {
        type nat hook prerouting priority dstnat - 5; policy accept;
        ip daddr @inside counter packets 6 bytes 360 jump mine
    }
    chain OUTPUT {
        type nat hook output priority -100; policy accept;
        ip daddr @inside counter packets 7 bytes 420 jump mine
    }
}
",
};

pub const ISTIO: Shape = Shape {
    v4: "*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
[10:600] -A PREROUTING -p tcp -j ISTIO_INBOUND
[20:1200] -A OUTPUT -p tcp -j ISTIO_OUTPUT
[1:60] -A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
[9:540] -A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
[9:540] -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
[2:120] -A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
[3:180] -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
[4:240] -A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
[5:300] -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
[6:360] -A ISTIO_OUTPUT -j ISTIO_REDIRECT
[6:360] -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
*raw
[3:180] -A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
[2:120] -A OUTPUT -p udp -m udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2
COMMIT
",
    v6: "*nat
:ISTIO_OUTPUT - [0:0]
[2:160] -A OUTPUT -p tcp -j ISTIO_OUTPUT
[2:160] -A ISTIO_OUTPUT -s ::6/128 -o lo -j RETURN
COMMIT
",
    native: "",
};

pub const LINKERD: Shape = Shape {
    v4: "*nat
:PROXY_INIT_OUTPUT - [0:0]
:PROXY_INIT_REDIRECT - [0:0]
[4:240] -A PREROUTING -m comment --comment \"proxy-init/install-proxy-init-prerouting\" -j PROXY_INIT_REDIRECT
[5:300] -A OUTPUT -m comment --comment \"proxy-init/install-proxy-init-output\" -j PROXY_INIT_OUTPUT
[1:60] -A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -m comment --comment \"proxy-init/ignore-proxy-user-id\" -j RETURN
[2:120] -A PROXY_INIT_OUTPUT -o lo -m comment --comment \"proxy-init/ignore-loopback\" -j RETURN
[2:120] -A PROXY_INIT_OUTPUT -p tcp -m comment --comment \"proxy-init/redirect-all-outgoing-to-proxy-port\" -j REDIRECT --to-ports 4140
[1:60] -A PROXY_INIT_REDIRECT -p tcp -m multiport --dports 4190,4191,4567,4568 -m comment --comment \"proxy-init/ignore-port-4190,4191,4567,4568\" -j RETURN
[3:180] -A PROXY_INIT_REDIRECT -p tcp -m comment --comment \"proxy-init/redirect-all-incoming-to-proxy-port\" -j REDIRECT --to-ports 4143
COMMIT
",
    v6: "",
    native: "",
};

pub const CALICO: Shape = Shape {
    v4: "*raw
:cali-OUTPUT - [0:0]
:cali-PREROUTING - [0:0]
[40:2400] -A PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING
[41:2460] -A OUTPUT -m comment --comment \"cali:tVnHkvAo15HuiPy0\" -j cali-OUTPUT
[41:2460] -A cali-OUTPUT -m comment --comment \"cali:njdnLwYeGqBJyMxW\" -j MARK --set-xmark 0x0/0xf0000
[40:2400] -A cali-PREROUTING -m comment --comment \"cali:XFX5xbM8B9qR10JG\" -j MARK --set-xmark 0x0/0xf0000
COMMIT
*mangle
:cali-PREROUTING - [0:0]
[39:2340] -A PREROUTING -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j cali-PREROUTING
[39:2340] -A cali-PREROUTING -m comment --comment \"cali:6BJqBjBC7crtA-7-\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
",
    v6: "",
    native: "",
};

pub const NAMESAKES: Shape = Shape {
    v4: "*nat
:KUMA_MESH_CUSTOM - [0:0]
:KUMA_MESH_INBOUND_2 - [0:0]
:kuma_mesh_outbound - [0:0]
:MY_KUMA_MESH_OUTBOUND - [0:0]
[5:300] -A PREROUTING -p tcp -m tcp --dport 9443 -j KUMA_MESH_INBOUND_2
[6:360] -A OUTPUT -p tcp -m tcp --dport 9999 -j KUMA_MESH_CUSTOM
[7:420] -A OUTPUT -p tcp -m tcp --dport 9998 -j kuma_mesh_outbound
[6:360] -A KUMA_MESH_CUSTOM -p tcp -j REDIRECT --to-ports 15001
[5:300] -A KUMA_MESH_INBOUND_2 -j MY_KUMA_MESH_OUTBOUND
COMMIT
*filter
:KUMA_MESH_INBOUND - [0:0]
:KUMA_MESH_LOGS - [0:0]
[3:180] -A INPUT -p tcp -m tcp --dport 4317 -j KUMA_MESH_LOGS
[3:180] -A INPUT -p tcp -m tcp --dport 4318 -j KUMA_MESH_INBOUND
[3:180] -A KUMA_MESH_INBOUND -j ACCEPT
[3:180] -A KUMA_MESH_LOGS -j ACCEPT
COMMIT
",
    v6: "*nat
:KUMA_MESH_CUSTOM - [0:0]
[6:480] -A OUTPUT -p tcp -m tcp --dport 9999 -j KUMA_MESH_CUSTOM
COMMIT
",
    native: "",
};

pub const MENTIONS: Shape = Shape {
    v4: "*nat
[1:60] -A OUTPUT -p tcp -m tcp --dport 1001 -m comment --comment \"see kuma/mesh/transparent/proxy/redirect\" -j ACCEPT
[2:120] -A OUTPUT -p tcp -m tcp --dport 1002 -m comment --comment \"kuma/mesh/transparent/proxyfoo\" -j ACCEPT
[3:180] -A OUTPUT -p tcp -m tcp --dport 1003 -m comment --comment \"KUMA_MESH_OUTBOUND comes later\" -j ACCEPT
[4:240] -A OUTPUT -p tcp -m tcp --dport 1004 -j LOG --log-prefix \"kuma/mesh/transparent/proxy \"
[5:300] -A OUTPUT -p tcp -m tcp --dport 1005 -j LOG --log-prefix \"-j KUMA_MESH_OUTBOUND\"
[6:360] -A OUTPUT -p tcp -m tcp --dport 1006 -m comment --comment \"KUMA/mesh/transparent/proxy/x\" -j ACCEPT
[7:420] -A PREROUTING -p tcp -m tcp --dport 1007 -m comment --comment \" kuma/mesh/transparent/proxy/x\" -j ACCEPT
[8:480] -A PREROUTING -p tcp -m tcp --dport 1008 -m comment --comment \"a --comment kuma/mesh/transparent/proxy/x\" -j ACCEPT
[9:540] -A PREROUTING -p tcp -m tcp --dport 1009 -m comment --comment \"x\\\" --comment \\\"kuma/mesh/transparent/proxy/x\" -j ACCEPT
COMMIT
*mangle
[1:60] -A PREROUTING -m conntrack --ctstate INVALID -j DROP
[2:120] -A PREROUTING -p tcp -m tcp --dport 5 -m comment --comment \"kuma/mesh\" -j ACCEPT
COMMIT
*raw
[1:60] -A OUTPUT -p udp -m udp --dport 53 -m owner --uid-owner 5678 -j CT --zone 1
COMMIT
",
    v6: "*nat
[1:80] -A OUTPUT -p tcp -m tcp --dport 1001 -m comment --comment \"see kuma/mesh/transparent/proxy/redirect\" -j ACCEPT
COMMIT
",
    native: "",
};

pub const QUOTES: Shape = Shape {
    v4: r#"*nat
[1:60] -A OUTPUT -p tcp -m tcp --dport 2001 -m comment --comment "say \"hello\"" -j ACCEPT
[2:120] -A OUTPUT -p tcp -m tcp --dport 2002 -m comment --comment "back\\slash \\\\ and \\\" both" -j ACCEPT
[3:180] -A OUTPUT -p tcp -m tcp --dport 2003 -m comment --comment "it\'s \'quoted\'" -j ACCEPT
[4:240] -A OUTPUT -p tcp -m tcp --dport 2004 -m comment --comment "$(reboot) `reboot` ; COMMIT # no | & > /dev/null" -j ACCEPT
[5:300] -A OUTPUT -p tcp -m tcp --dport 2005 -m comment --comment "grüße 你好" -j ACCEPT
[6:360] -A OUTPUT -p tcp -m tcp --dport 2006 -m comment --comment "-j KUMA_MESH_OUTBOUND" -j ACCEPT
[7:420] -A OUTPUT -p tcp -m tcp --dport 2007 -m comment --comment "COMMIT" -j ACCEPT
[8:480] -A OUTPUT -p tcp -m tcp --dport 2008 -m comment --comment "*nat" -j ACCEPT
[9:540] -A OUTPUT -p tcp -m tcp --dport 2009 -m comment --comment ":KUMA_MESH_OUTBOUND - [0:0]" -j ACCEPT
COMMIT
"#,
    v6: "",
    native: "",
};

pub const FILTER: Shape = Shape {
    v4: "*filter
:INPUT DROP [3:180]
:FORWARD DROP [2:120]
:OUTPUT ACCEPT [1:60]
[10:600] -A INPUT -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 20 --hashlimit-mode srcip --hashlimit-name ssh -j ACCEPT
[11:660] -A INPUT -p icmp -m icmp --icmp-type 8 -m length --length 0:100 -j ACCEPT
[12:720] -A INPUT -s 192.0.2.0/24 -m time --timestart 09:00:00 --timestop 17:00:00 -j ACCEPT
[13:780] -A OUTPUT -p tcp -m tcp --tcp-flags SYN,RST SYN -j ACCEPT
COMMIT
*security
:OUTPUT ACCEPT [5:300]
:AUDIT_LATER - [0:0]
[14:840] -A OUTPUT -p tcp -m tcp --dport 3128 -j AUDIT_LATER
COMMIT
*mangle
[15:900] -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
[16:960] -A POSTROUTING -p udp -m udp --dport 5060 -j DSCP --set-dscp 0x1a
COMMIT
",
    v6: "*filter
:INPUT DROP [3:240]
[10:800] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*security
[1:80] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
",
    native: "",
};
