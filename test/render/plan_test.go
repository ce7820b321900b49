package render

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// The expected sets are the measured ones: which modules Istio's own code pulled in, per backend and mode.
func TestThePlanFollowsTheBackendAndTheMeshsModes(t *testing.T) {
	t.Parallel()
	const (
		nft           = "nf_tables nft_compat nft_chain_nat|nft_chain_nat_ipv4 nft_chain_nat|nft_chain_nat_ipv6 xt_REDIRECT xt_owner xt_tcpudp xt_comment nft_counter|nf_tables"
		legacy        = "iptable_nat xt_REDIRECT|ipt_REDIRECT xt_owner|ipt_owner xt_tcpudp iptable_filter"
		native        = "nf_tables nft_chain_nat nft_redir nft_counter|nf_tables"
		onlyRedirect  = "mesh: {ipv6: false, dns: false}\n"
		legacyVersion = "image: {tag: 1.25.3}\n"
	)
	for _, row := range []struct {
		name   string
		values string
		want   string
	}{
		{"newest Istio takes nft", onlyRedirect, nft},
		{"dual stack costs nft nothing", "mesh: {dns: false}", nft},
		{"DNS capture with nft", "", nft + " xt_CT xt_multiport"},
		{"TPROXY with nft", "mesh: {dns: false, tproxy: true}", nft + " xt_TPROXY xt_connmark xt_conntrack xt_mark"},
		{"Istio before 1.25.4 takes legacy", onlyRedirect + legacyVersion, legacy},
		{"dual stack with legacy", "mesh: {dns: false}\n" + legacyVersion, legacy + " ip6table_nat ip6table_mangle ip6table_raw ip6table_filter"},
		{"DNS capture with legacy", "mesh: {ipv6: false}\n" + legacyVersion, legacy + " iptable_raw xt_CT xt_multiport"},
		{"TPROXY with legacy", "mesh: {ipv6: false, dns: false, tproxy: true}\n" + legacyVersion, legacy + " iptable_mangle xt_TPROXY xt_connmark xt_conntrack xt_mark"},
		{"native-nft", onlyRedirect + "backend: native-nft", native},
		{"the mesh's own native-nft", onlyRedirect + "global: {nativeNftables: true}", native},
		{"an explicit backend wins over the mesh's native-nft", onlyRedirect + "backend: nft\nglobal: {nativeNftables: true}", nft},
		{"native-nft with DNS capture and TPROXY", "mesh: {tproxy: true}\nbackend: native-nft", native + " nft_ct nft_tproxy"},
		{"an explicit backend wins over the version", onlyRedirect + "image: {tag: 1.26.0}\nbackend: legacy", legacy},
		{"istio-cni runs the host's iptables, whatever the version", "mesh: {ipv6: false, dns: false, cni: true}\n" + legacyVersion, nft},
		{"istio-cni of an unknown version too", "mesh: {ipv6: false, dns: false, cni: true}\nimage: {tag: latest}", nft},
		{"the mesh's own native-nft is istio-cni's too", "mesh: {ipv6: false, dns: false, cni: true}\nglobal: {nativeNftables: true}", native},
		{"a host of istio-cni that has legacy alone", "mesh: {ipv6: false, dns: false, cni: true}\nbackend: legacy", legacy},
		{"INVALID_DROP with nft", "mesh: {ipv6: false, dns: false, dropInvalid: true}", nft + " xt_conntrack"},
		{"INVALID_DROP with legacy", "mesh: {ipv6: false, dns: false, dropInvalid: true}\n" + legacyVersion, legacy + " iptable_mangle xt_conntrack"},
		{"INVALID_DROP with native-nft", "mesh: {ipv6: false, dns: false, dropInvalid: true}\nbackend: native-nft", native + " nft_ct"},
		{"a dual-stack mesh needs what IPv6 needs", "mesh: {dns: false, dualStack: true}\n" + legacyVersion, legacy + " ip6table_nat ip6table_mangle ip6table_raw ip6table_filter"},
		{"the mesh's tag counts", onlyRedirect + "global: {tag: 1.16.1}", legacy},
		{"first version with nft", onlyRedirect + "image: {tag: 1.25.4}", nft},
		{"development builds count as their version", onlyRedirect + "image: {tag: 1.26-alpha.0f2c}", nft},
		{"a variant does not change the version", onlyRedirect + "image: {tag: 1.25.3-debug}", legacy},
		{"a leading v does not change the version", onlyRedirect + "image: {tag: v1.25.3}", legacy},
		{"a vendor's suffix does not change the version", onlyRedirect + "image: {tag: 1.25.3-tetrate-v0}", legacy},
		{"a vendor's fourth number does not change the version", onlyRedirect + "image: {tag: v1.26.6.64-g7b1d2c3-aliyun}", nft},
		{"a vendor's build does not change the version", onlyRedirect + "image: {tag: 1.24.8-asm.27}", legacy},
		{"a vendor's own version is unknown", onlyRedirect + "image: {tag: 3.1.0}", legacy + " nf_tables nft_compat nft_chain_nat|nft_chain_nat_ipv4 nft_chain_nat|nft_chain_nat_ipv6 xt_REDIRECT xt_owner xt_comment nft_counter|nf_tables"},
		{"unknown version takes both", onlyRedirect + "image: {tag: latest}", legacy + " nf_tables nft_compat nft_chain_nat|nft_chain_nat_ipv4 nft_chain_nat|nft_chain_nat_ipv6 xt_REDIRECT xt_owner xt_comment nft_counter|nf_tables"},
		{"a digest alone is an unknown version", onlyRedirect + "image: {digest: 'sha256:" + strings.Repeat("0", 64) + "'}",
			legacy + " nf_tables nft_compat nft_chain_nat|nft_chain_nat_ipv4 nft_chain_nat|nft_chain_nat_ipv6 xt_REDIRECT xt_owner xt_comment nft_counter|nf_tables"},
		{"modules of the user's own, dash or underscore", onlyRedirect + "modules: {extra: [br-netfilter, br_netfilter, xt_owner]}", nft + " br_netfilter"},
		{"a list of the user's own", onlyRedirect + "modules: {base: {nft: [nf_tables]}}", "nf_tables"},
		{"ambient adds its own", onlyRedirect + "mesh: {ipv6: false, dns: false, ambient: true}", nft + " xt_CT xt_connmark xt_mark xt_nat xt_set ip_set ip_set_hash_ip"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			values := row.values
			if strings.Count(values, "mesh:") > 1 { // the row's own modes replace the short form
				values = strings.TrimPrefix(values, onlyRedirect)
			}
			require.Equal(t, strings.Fields(row.want), chart.Render(t, values).Plan(t))
		})
	}
}

func TestVerifyRunsIstioInitsCommandWithTheMeshsSettings(t *testing.T) {
	t.Parallel()
	// files/injection-template.yaml of Istio 1.31
	const istioInit = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020 --log_output_level=default:info"
	for _, row := range []struct {
		name   string
		values string
		want   string
	}{
		{"REDIRECT", "mesh: {dns: false}", istioInit},
		{"DNS capture", "", istioInit + " --redirect-dns"},
		{"TPROXY", "mesh: {dns: false, tproxy: true}", strings.Replace(istioInit, "REDIRECT", "TPROXY", 1)},
		{"native-nft", "{backend: native-nft, mesh: {dns: false}}", istioInit + " --native-nftables"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, row.values)
			require.Equal(t, strings.Split(row.want, " "), objects.Container(t, "verify").Args)
			require.Equal(t, objects.Container(t, "verify").Args, objects.Container(t, "verify-traffic").Args)
		})
	}
}

func TestWithoutVerifyTheNamesDecide(t *testing.T) {
	t.Parallel()
	require.Equal(t, "false", env(chart.Render(t, "").Container(t, "load"))["ISTIO_OS_INIT_NAMES_DECIDE"])

	objects := chart.Render(t, "verify: {enabled: false}")
	require.Equal(t, "true", env(objects.Container(t, "load"))["ISTIO_OS_INIT_NAMES_DECIDE"])
	require.Len(t, objects.Pod(t).InitContainers, 1)
}

func TestTheConfigMapShipsTheScriptsAsTheyAre(t *testing.T) {
	t.Parallel()
	ships := func(data map[string]string, scripts ...string) {
		for _, script := range scripts {
			// helm cuts the last line break of a manifest
			require.Equal(t, strings.TrimSuffix(source(t, script), "\n"), strings.TrimSuffix(data[path.Base(script)], "\n"), script)
		}
	}
	objects := chart.Render(t, "")
	files, err := os.ReadDir(filepath.Join(chart.Path(), "files"))
	require.NoError(t, err)
	ambient := []string{"ambient.sh", "ambient.pl", "ambient.iptables", "ambient.nft"}
	var scripts []string
	for _, file := range files {
		if !slices.Contains(append([]string{"signal.sh", "api.sh", "clean-up.sh", "uninstall.sh"}, ambient...), file.Name()) {
			scripts = append(scripts, file.Name())
		}
	}
	data := objects.ConfigMap(t).Data
	ships(data, scripts...)
	require.Len(t, data, len(scripts)+2, "the scripts, the plan and the backends' needs")
	data = objects.Hooks.ConfigMap(t).Data
	ships(data, "outcome.sh", "persist.sh", "clean-up.sh", "api.sh", "uninstall.sh")
	require.Len(t, data, 5)

	objects = chart.Render(t, "signals: {nodeCondition: {enabled: true}}")
	data = objects.ConfigMap(t).Data
	ships(data, append(scripts, "signal.sh", "api.sh")...)
	require.Len(t, data, len(scripts)+4)

	data = chart.Render(t, "mesh: {ambient: true}").ConfigMap(t).Data
	ships(data, append(scripts, ambient...)...)
	require.Len(t, data, len(scripts)+2+len(ambient))
}

func TestAChangeOfPlanOrScriptsRollsThePods(t *testing.T) {
	t.Parallel()
	config := func(objects chart.Objects) string {
		config := objects.ConfigMap(t)
		require.True(t, *config.Immutable, config.Name)
		for _, volume := range objects.Pod(t).Volumes {
			if volume.ConfigMap != nil {
				require.Equal(t, config.Name, volume.ConfigMap.Name)
			}
		}
		return config.Name
	}
	before := config(chart.Render(t, ""))
	require.Regexp(t, "^istio-os-init-[0-9a-f]{8}$", before)
	require.Equal(t, before, config(chart.Render(t, "podLabels: {a: b}")), "what is not in the ConfigMap does not count")
	require.NotEqual(t, before, config(chart.Render(t, "modules: {extra: [br_netfilter]}")))

	changed := chart.Copy(t)
	appendTo(t, changed+"/files/watch.sh", "# changed\n")
	manifest, err := chart.Manifest(t, changed, nil)
	require.NoError(t, err)
	require.NotEqual(t, before, config(chart.Decode(t, manifest)))
}
