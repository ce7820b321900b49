// Cni-agent-stand-in programs what Istio's CNI agent programs for ambient, by the agent's own code, in the network namespace that it runs in.
//
// Usage:  cni-agent-stand-in iptables|nftables pod|host
// In:     FORCE_IPTABLES_BINARY: nft or legacy, as for the agent; empty: the agent chooses. nftables is what global.nativeNftables chooses.
// Out:    a line for each step; the agent's own log on stdout.
// Exit:   0 all rules are there; 1 a step has failed, the last line says which and why; 2 wrong usage.
//
// It needs NET_ADMIN and NET_RAW. What differs from the agent (istio.io/istio/cni/pkg/nodeagent): it works once, and in one namespace,
// where the agent enters the pod's and the host's.
package main

import (
	"fmt"
	"net/netip"
	"os"

	"istio.io/istio/cni/pkg/config"
	"istio.io/istio/cni/pkg/ipset"
	"istio.io/istio/cni/pkg/iptables"
	"istio.io/istio/cni/pkg/nftables"
	"istio.io/istio/cni/pkg/scopes"
	"istio.io/istio/pkg/log"
	"istio.io/istio/tools/istio-iptables/pkg/dependencies"
)

// rules is what both of the agent's configurators can do: one made for the host, one for pods.
type rules interface {
	CreateInpodRules(log *log.Scope, overrides config.PodLevelOverrides) error
	CreateHostRulesForHealthChecks() error
}

// probes is the set of pods whose kubelet's probes the host's rules let through.
type probes interface {
	AddIP(ip netip.Addr, protocol uint8, comment string, replace bool) error
}

func main() {
	if len(os.Args) != 3 || (os.Args[1] != "iptables" && os.Args[1] != "nftables") || (os.Args[2] != "pod" && os.Args[2] != "host") {
		fmt.Fprintln(os.Stderr, "usage: cni-agent-stand-in iptables|nftables pod|host")
		os.Exit(2)
	}
	backend, half := os.Args[1], os.Args[2]
	// as the agent's: istio.io/istio/cni/pkg/nodeagent, with the addresses of its options
	ambient := &config.AmbientConfig{
		EnableIPv6: os.Getenv("AMBIENT_IPV6") != "false", RedirectDNS: true, Reconcile: true,
		HostProbeSNATAddress:   netip.MustParseAddr("169.254.7.127"),
		HostProbeV6SNATAddress: netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
	}
	force := os.Getenv("FORCE_IPTABLES_BINARY")
	ofHost := &dependencies.RealDependencies{ForceIptablesBinary: force}
	ofPod := &dependencies.RealDependencies{ForceIptablesBinary: force, UsePodScopedXtablesLock: true, NetworkNamespace: "/proc/self/ns/net"}

	var host, pod rules
	var err error
	if backend == "iptables" {
		host, pod, err = iptables.NewIptablesConfigurator(ambient, ambient, ofHost, ofPod, iptables.RealNlDeps())
	} else {
		host, pod, err = nftables.NewNftablesConfigurator(ambient, ambient, ofHost, ofPod, iptables.RealNlDeps())
	}
	done("the backend is found", err)
	if half == "pod" {
		done("the pod's rules", pod.CreateInpodRules(scopes.CNIAgent, config.PodLevelOverrides{}))
		return
	}
	var set probes
	if backend == "iptables" {
		set, err = newIPSet(ambient.EnableIPv6)
	} else {
		set, err = nftables.NewHostSetManager(config.ProbeIPSet, ambient.EnableIPv6)
	}
	done("the set of pods", err)
	done("a pod in it", set.AddIP(netip.MustParseAddr("10.1.2.3"), 6, "uid-of-pod", false))
	done("the host's rules", host.CreateHostRulesForHealthChecks())
}

func newIPSet(ipv6 bool) (probes, error) {
	set, err := ipset.NewIPSet(config.ProbeIPSet, ipv6, ipset.RealNlDeps())
	return &set, err
}

// done says that a step is done, or ends the program if it has failed.
func done(step string, err error) {
	if err != nil {
		fmt.Printf("FAILED: %s: %v\n", step, err)
		os.Exit(1)
	}
	fmt.Println("done:", step)
}
