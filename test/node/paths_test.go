package node

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// withFamilies gives the pod an IPv6 address beside IPv4's, and a nameserver of each family to which the pod has a route.
func (s *sandbox) withFamilies() *sandbox {
	s.t.Helper()
	s.write("resolv.conf", "nameserver 192.0.2.53\nnameserver 2001:db8:53::53\n")
	s.before += `
ip link add eth0 type veth peer name node0
ip link set eth0 up && ip link set node0 up
ip address add 192.0.2.2/24 dev eth0
ip -6 address add 2001:db8:53::1/64 dev eth0 nodad
mount --bind ` + s.path("resolv.conf") + ` /etc/resolv.conf
`
	return s
}

func TestTrafficArrivesOnEachPathOfEachFamily(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, values string }{
		{"nft", "{backend: nft, mesh: {dualStack: true}}"},
		{"legacy", "{backend: legacy, mesh: {dualStack: true}}"},
		{"native-nft", "{backend: native-nft, mesh: {dualStack: true}}"},
		{"nft TPROXY", "{backend: nft, mesh: {dualStack: true, tproxy: true}}"},
		{"legacy TPROXY", "{backend: legacy, mesh: {dualStack: true, tproxy: true}}"},
		{"native-nft TPROXY", "{backend: native-nft, mesh: {dualStack: true, tproxy: true}}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, row.values).withIstio().withFamilies()
			got := s.run("load", "verify", "verify", "verify-traffic")
			require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
			require.Equal(t, map[string]string{
				"outbound IPv4": "arrived", "inbound IPv4": "arrived", "dns IPv4": "arrived",
				"outbound IPv6": "arrived", "inbound IPv6": "arrived", "dns IPv6": "arrived",
			}, s.outcome("verify").paths, got.log)
			require.Equal(t, "a connection of the proxy's user, outbound over IPv4, inbound over IPv4, dns over IPv4, outbound over IPv6, inbound over IPv6, dns over IPv6",
				s.outcome("traffic").reasons[0].subject)
			require.Len(t, s.json().Paths, 6)
		})
	}
}

// A family that the mesh does not redirect is none that is proven.
func TestOnlyTheFamiliesThatIstioRedirectsAreTried(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "mesh: {dns: false}").withIstio().withFamilies()
	got := s.verify()
	require.Equal(t, map[string]string{"outbound IPv4": "arrived", "inbound IPv4": "arrived"}, s.outcome("verify").paths, got.log)
}

// Rules that are refused are Istio's failure. Here they are applied and then lost, as to another program on the node.
func TestAPathWhoseRulesAreFlushedIsLost(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, values, flush, lost string }{
		{"outbound", "{backend: nft, mesh: {dns: false}}", "iptables-nft -t nat -F OUTPUT", "outbound over IPv4"},
		{"inbound", "{backend: nft, mesh: {dns: false}}", "iptables-nft -t nat -F PREROUTING", "inbound over IPv4"},
		{"inbound of legacy", "{backend: legacy, mesh: {dns: false}}", "iptables-legacy -t nat -F PREROUTING", "inbound over IPv4"},
		{"all of native nftables", "{backend: native-nft, mesh: {dns: false}}", "nft flush ruleset", "outbound over IPv4, inbound over IPv4"},
		{"mangle of TPROXY", "{backend: nft, mesh: {dns: false, tproxy: true}}", "iptables-nft -t mangle -F PREROUTING", "inbound over IPv4"},
		{"the policy rule of TPROXY", "{backend: nft, mesh: {dns: false, tproxy: true}}", "ip rule delete fwmark 1337", "inbound over IPv4"},
		{"DNS", "{backend: nft}", "iptables-nft -t nat -D ISTIO_OUTPUT_DNS -d 192.0.2.53/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053", "dns over IPv4"},
		{"DNS over IPv6", "{backend: nft, mesh: {dualStack: true}}", "ip6tables-nft -t nat -D ISTIO_OUTPUT_DNS -d 2001:db8:53::53/128 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053", "dns over IPv6"},
		{"mangle of TPROXY over IPv6", "{backend: legacy, mesh: {dns: false, dualStack: true, tproxy: true}}", "ip6tables-legacy -t mangle -F PREROUTING", "inbound over IPv6"},
		{"the policy rule of TPROXY over IPv6", "{backend: native-nft, mesh: {dns: false, dualStack: true, tproxy: true}}", "ip -6 rule delete fwmark 1337", "inbound over IPv6"},
		{"IPv6 of two families", "{backend: nft, mesh: {dns: false, dualStack: true}}", "ip6tables-nft -t nat -F", "outbound over IPv6, inbound over IPv6"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, row.values).withIstio().withFamilies()
			perl, err := exec.LookPath("perl")
			require.NoError(t, err)
			s.program("pilot-agent", program(t, "proxyv2-stand-in")+` "$@" && `+row.flush).program("perl", "exec "+perl+` "$@"`)
			got := s.verify()
			require.Equal(t, "False TrafficNotRedirected", s.outcome("verify").says(), got.log)
			require.Equal(t, row.lost, s.outcome("verify").reasons[0].subject, got.log)
			require.Equal(t, "False", s.json().Status)
		})
	}
}

// A pod of the mesh, or another program on the node, may send to the proxy's ports too.
func TestWhatOthersSendIsNoTrafficOfTheProof(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "backend: nft").withIstio().withFamilies()
	s.before += `(for i in $(seq 600); do echo other | timeout 1 perl -MIO::Socket::INET -e 'for (@ARGV) { IO::Socket::INET->new(Proto => "udp", PeerAddr => "192.0.2.2:15053")->send("other"); IO::Socket::INET->new(PeerAddr => "192.0.2.2:15001", Timeout => 1) }' 1 2; sleep 0.1; done) >/dev/null 2>&1 &
`
	perl, err := exec.LookPath("perl")
	require.NoError(t, err)
	s.program("pilot-agent", program(t, "proxyv2-stand-in")+` "$@" && iptables-nft -t nat -F OUTPUT && iptables-nft -t nat -F ISTIO_OUTPUT_DNS`).program("perl", "exec "+perl+` "$@"`)
	s.after = "kill %1; true"
	got := s.verify()
	require.Equal(t, "False TrafficNotRedirected", s.outcome("verify").says(), got.log)
	require.Equal(t, "outbound over IPv4, dns over IPv4", s.outcome("verify").reasons[0].subject, got.log)
}

// What a pod cannot try is said, and is neither a failure nor proven.
func TestAPathThatCannotBeTriedIsNoFailureAndIsNotCalledProven(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, program, instead, want string }{
		{"killed with its wire", "perl", "ip link add osi-near type veth peer name osi-far; exit 137", "a connection of the proxy's user; not tried: others over IPv4"},
		{"no perl", "perl", "exit 127", "a connection of the proxy's user; not tried: all over IPv4"},
		{"killed half way", "perl", "echo path outbound 4 arrived; exit 137", "a connection of the proxy's user, outbound over IPv4; not tried: others over IPv4"},
		{"too slow", "perl", "exit 142", "a connection of the proxy's user; not tried: others over IPv4"},
		{"no veth pair", "ip", `[ "$1" != -force ] || exit 1; exec /sbin/ip "$@"`, "a connection of the proxy's user; not tried: outbound over IPv4, inbound over IPv4"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "mesh: {dns: false}").withIstio()
			s.program(row.program, row.instead)
			s.after = "ip -o link"
			got := s.run("load", "verify", "verify-traffic")
			require.NotContains(t, got.log, "osi-near", "an address by which Istio would choose the family of a second start")
			require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
			require.Equal(t, row.want, s.outcome("traffic").reasons[0].subject)
		})
	}
}

// Istio reads the nameservers from resolv.conf, and captures what goes to them.
func TestDNSIsNotCalledProvenWithoutANameserverThatTheRulesCapture(t *testing.T) {
	t.Parallel()
	for name, nameservers := range map[string]string{"none": "search stand-in\n", "one of the pod's own": "nameserver 127.0.0.53\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "").withIstio()
			s.write("resolv.conf", nameservers)
			s.before = "mount --bind " + s.path("resolv.conf") + " /etc/resolv.conf"
			got := s.run("load", "verify", "verify-traffic")
			require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
			require.Equal(t, "a connection of the proxy's user, outbound over IPv4, inbound over IPv4; not tried: dns over IPv4", s.outcome("traffic").reasons[0].subject)
		})
	}
}
