package render

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Each row of docs/istio.md, by its first and its last version.
func TestThePlanForEachIstioIsThatOfTheTable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "istio.md"))
	require.NoError(t, err)
	newest, err := strconv.Atoi(strings.Split(chart.AppVersion(t), ".")[1])
	require.NoError(t, err)
	number := func(digits string) int {
		n, err := strconv.Atoi(digits)
		require.NoError(t, err)
		return n
	}
	rows := regexp.MustCompile(`(?m)^\| 1\.(\d+)(?:\.(\d+))?(?: – 1\.(\d+)(?:\.(\d+))?|( and later))? \| \w+ \| .+ \| ([a-z-]+) \| (ignored|obeyed) \| (.+) \|$`).FindAllStringSubmatch(string(page), -1)
	next := "1.16.0" // the oldest that the chart knows
	for _, row := range rows {
		first, last := "1."+row[1]+"."+cmp.Or(row[2], "0"), ""
		require.Equal(t, next, first, "a version has no row, or two")
		switch minor := cmp.Or(row[3], row[1]); {
		case row[5] != "":
			last, next = fmt.Sprintf("1.%d.99", newest), ""
		case row[4] != "":
			last, next = "1."+minor+"."+row[4], fmt.Sprintf("1.%s.%d", minor, number(row[4])+1)
		default:
			last, next = "1."+minor+".99", fmt.Sprintf("1.%d.0", number(minor)+1)
		}
		auto, obeys, native := row[6], row[7] == "obeyed", row[8] != "none"
		for _, tag := range []string{first, last} {
			t.Run(tag, func(t *testing.T) {
				t.Parallel()
				image := fmt.Sprintf("\nimage: {tag: %s}", tag)
				require.Equal(t, auto, env(chart.Render(t, image).Container(t, "verify"))["ISTIO_OS_INIT_BACKENDS"])
				forced := env(chart.Render(t, "backend: legacy"+image).Container(t, "verify"))["FORCE_IPTABLES_BINARY"]
				require.Equal(t, map[bool]string{true: "legacy"}[obeys], forced)
				for backend, can := range map[string]bool{"native-nft": native, "nft": auto == "nft"} {
					_, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, "backend: "+backend+image)})
					if can {
						require.NoError(t, err, backend)
					} else {
						require.ErrorContains(t, err, "backend "+backend)
					}
				}
				verify := chart.Render(t, "{backend: nft, mesh: {cni: true}}", "--set", "image.tag="+tag).Container(t, "verify")
				require.Equal(t, "nft", env(verify)["ISTIO_OS_INIT_BACKENDS"], "istio-cni runs the host's iptables")
				require.NotContains(t, env(verify), "FORCE_IPTABLES_BINARY")
			})
		}
	}
	require.Empty(t, next, "the table ends before the newest version")
}

func TestVerifyIsToldWhatTheMeshTellsIstioInit(t *testing.T) {
	t.Parallel()
	names := []string{"FORCE_IPTABLES_BINARY", "INVALID_DROP", "ISTIO_DUAL_STACK", "ISTIO_OS_INIT_CNI"}
	for _, row := range []struct {
		name   string
		values string
		want   map[string]string
		notes  []string
	}{
		{"nothing by default", "", nil, nil},
		{"native-nft by an argument", "backend: native-nft", nil, []string{"global.nativeNftables=true"}},
		{"nft", "backend: nft", map[string]string{"FORCE_IPTABLES_BINARY": "nft"}, []string{"meshConfig.defaultConfig.proxyMetadata.FORCE_IPTABLES_BINARY=nft"}},
		{"legacy", "backend: legacy", map[string]string{"FORCE_IPTABLES_BINARY": "legacy"}, []string{"meshConfig.defaultConfig.proxyMetadata.FORCE_IPTABLES_BINARY=legacy"}},
		{"a version that has no choice", "{backend: legacy, image: {tag: 1.25.3}}", nil, nil},
		{"dual stack", "mesh: {dualStack: true}", map[string]string{"ISTIO_DUAL_STACK": "true"}, []string{"meshConfig.defaultConfig.proxyMetadata.ISTIO_DUAL_STACK=true"}},
		{"no dual stack where pods have IPv6 alone", "mesh: {ipv6: true}", nil, nil},
		{"INVALID_DROP", "mesh: {dropInvalid: true}", map[string]string{"INVALID_DROP": "true"}, []string{"meshConfig.defaultConfig.proxyMetadata.INVALID_DROP=true"}},
		{"TPROXY by an argument", "mesh: {tproxy: true}", nil, []string{"meshConfig.defaultConfig.interceptionMode=TPROXY"}},
		{"istio-cni, whose host has one backend", "{backend: legacy, mesh: {cni: true}}", map[string]string{"ISTIO_OS_INIT_CNI": "true"}, nil},
		{"ambient with native-nft", "{global: {nativeNftables: true}, mesh: {ambient: true}}", nil, []string{"global.nativeNftables=true (of istio-cni's chart too)"}},
		{"ambient with legacy", "{backend: legacy, mesh: {ambient: true}}", map[string]string{"FORCE_IPTABLES_BINARY": "legacy"}, []string{"env.FORCE_IPTABLES_BINARY=legacy (of istio-cni's chart)"}},
		{"istio-cni with native-nft", "{global: {nativeNftables: true}, mesh: {cni: true}}", map[string]string{"ISTIO_OS_INIT_CNI": "true"}, []string{"global.nativeNftables=true (of istio-cni's chart too)"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, row.values)
			for _, container := range []string{"verify", "verify-traffic"} {
				got := env(objects.Container(t, container))
				for _, name := range names {
					if value, found := row.want[name]; found && container == "verify" {
						require.Equal(t, value, got[name])
					} else {
						require.NotContains(t, got, name, container)
					}
				}
			}
			said := notes(t, chart.Helm3, row.values)
			require.Equal(t, len(row.notes) > 0, strings.Contains(said, "\nNOTE: the proof holds for a mesh with the same settings."), said)
			for _, line := range row.notes {
				require.Contains(t, said, "\n  "+line+"\n")
			}
		})
	}
}

func TestTheNotesWarnOfABackendThatIstioCannotBeToldToUse(t *testing.T) {
	t.Parallel()
	const warning = "does not obey FORCE_IPTABLES_BINARY"
	for tag, want := range map[string]bool{"1.25.3": false, "1.25.4": true, "1.26.0": true, "1.27.9": true, "1.28.0": false, "latest": false} {
		require.Equal(t, want, strings.Contains(notes(t, chart.Helm3, "{backend: legacy, image: {tag: "+tag+"}}"), warning), tag)
	}
	require.NotContains(t, notes(t, chart.Helm3, "{backend: legacy, mesh: {cni: true}, image: {tag: 1.26.0}}"), warning)

	const both = "the plan serves both"
	require.Contains(t, notes(t, chart.Helm3, "image: {tag: latest}"), both)
	require.NotContains(t, notes(t, chart.Helm3, "{backend: nft, image: {tag: latest}}"), both)
}
