// Package config asks one question: does each system that `report --config` speaks to take what is printed for it? Each answer is that of
// the system's own parser, or of its documented schema if there is no Go module of it.
package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	butane "github.com/coreos/butane/config"
	butanecommon "github.com/coreos/butane/config/common"
	"github.com/coreos/ignition/v2/config/v3_2"
	"github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	machineconfigv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
	talos "github.com/siderolabs/talos/pkg/machinery/config/types/v1alpha1"
	"github.com/stretchr/testify/require"
	"github.com/vincent-petithory/dataurl"
	"sigs.k8s.io/yaml"
)

// forms are all that report --config prints.
var forms = []string{"modules-load", "machineconfig", "talos", "bottlerocket", "butane"}

// outcome is what a proven node has recorded (outcome.sh).
const outcome = "round 1\nuptime 1\nstatus True\nline ModulesFound: every module of the plan\nmessage A sentence.\n" +
	"reason ModulesFound\nsubject every module of the plan\nsentence A sentence.\n"

// facts are those of a node with modules in each state and with each kind of rule (load.sh). What a file of modprobe.d says is a person's.
const facts = `kernel 5.14.0-503.el9.x86_64
os Stand-in
os-id fedora
os-variant coreos
modprobe works
module nf_tables loaded-now
module xt_CT loaded-before
module nft_compat built-in
missing xt_owner on-disk ERROR: could not insert 'xt_owner': Invalid argument
missing xt_comment unknown
missing no_such_module not-on-disk
rule install xt_owner /usr/lib/modprobe.d/x.conf:2 // /bin/false
rule blacklist xt_owner /usr/lib/modprobe.d/x.conf:3
rule module_blacklist xt_owner /proc/cmdline:module_blacklist
kept /usr/lib/modprobe.d/x.conf // # vendor's "own" 100%, C:\x: {a} #b $c
kept /usr/lib/modprobe.d/x.conf //   options nf_conntrack hashsize=1
`

var (
	modules = []string{"nf_tables", "xt_CT", "xt_owner", "xt_comment"}
	// wantFiles are the files that Ignition writes: the modules, and in the place of the file that hinders what else it says.
	wantFiles = map[string]string{
		"/etc/modules-load.d/istio.conf": strings.Join(modules, "\n") + "\n",
		"/etc/modprobe.d/x.conf":         "# vendor's \"own\" 100%, C:\\x: {a} #b $c\n  options nf_conntrack hashsize=1\n",
	}
)

// report runs what `kubectl exec ... -- report ARGUMENTS` runs on a proven node with these facts, and returns what it prints and its exit
// code.
func report(t *testing.T, facts string, arguments ...string) (stdout, stderr string, exit int) {
	t.Helper()
	return reportOn(t, outcome, facts, arguments...)
}

// reportOn is report after load has recorded this outcome, "" for none.
func reportOn(t *testing.T, outcome, facts string, arguments ...string) (stdout, stderr string, exit int) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(file), "..", "..", "charts", "istio-os-init", "files", "report")
	state := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(state, "load"), 0o755))
	for name, content := range map[string]string{"outcome": outcome, "facts": facts} {
		require.NoError(t, os.WriteFile(filepath.Join(state, "load", name), []byte(content), 0o644))
	}
	command := exec.CommandContext(t.Context(), "/bin/sh", append([]string{script}, arguments...)...)
	command.Env = append(os.Environ(), "ISTIO_OS_INIT_STATE="+state, "ISTIO_OS_INIT_NODE=worker-2")
	var errors strings.Builder
	command.Stderr = &errors
	output, err := command.Output()
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return string(output), errors.String(), command.ProcessState.ExitCode()
}

// config returns what report --config prints on such a node.
func config(t *testing.T, facts, form string) string {
	t.Helper()
	text, said, exit := report(t, facts, "--config", form)
	require.Zero(t, exit, said)
	require.Empty(t, said)
	return text
}

// files are the regular files that an Ignition config writes, by their path.
func files(t *testing.T, list []types.File) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, file := range list {
		url, err := dataurl.DecodeString(*file.Contents.Source)
		require.NoError(t, err, file.Path)
		require.Equal(t, 0o644, *file.Mode, file.Path)
		require.True(t, *file.Overwrite, "%s: a file that is there would be an error", file.Path)
		content := string(url.Data)
		if file.Contents.Compression != nil {
			require.Empty(t, *file.Contents.Compression)
		}
		found[file.Path] = content
	}
	return found
}

func TestOpenShiftTakesTheMachineConfigAndIgnitionItsConfig(t *testing.T) {
	t.Parallel()
	text := config(t, facts, "machineconfig")
	alias, _, _ := report(t, facts, "--machineconfig")
	require.Equal(t, text, alias, "--machineconfig is the same")

	var object machineconfigv1.MachineConfig
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &object))
	require.Equal(t, "machineconfiguration.openshift.io/v1", object.APIVersion)
	require.Equal(t, "MachineConfig", object.Kind)
	require.Equal(t, "worker", object.Labels[machineconfigv1.MachineConfigRoleLabelKey])
	_, said, err := v3_2.Parse(object.Spec.Config.Raw) // the version that it names
	require.NoError(t, err, said.String())
	require.Empty(t, said.Entries)
	parsed, said, err := v3_6.ParseCompatibleVersion(object.Spec.Config.Raw)
	require.NoError(t, err, said.String())
	require.Equal(t, wantFiles, files(t, parsed.Storage.Files))
}

func TestButaneTakesItsConfigForFedoraCoreOSAndForFlatcar(t *testing.T) {
	t.Parallel()
	for id, variant := range map[string]string{"fedora": "fcos", "flatcar": "flatcar"} {
		text := config(t, strings.ReplaceAll(facts, "os-id fedora", "os-id "+id), "butane")
		require.Contains(t, text, "\nvariant: "+variant+"\n")
		translated, said, err := butane.TranslateBytes([]byte(text), butanecommon.TranslateBytesOptions{})
		require.NoError(t, err, said.String())
		require.Empty(t, said.Entries, said.String())
		parsed, said, err := v3_6.ParseCompatibleVersion(translated)
		require.NoError(t, err, said.String())
		require.Equal(t, wantFiles, files(t, parsed.Storage.Files))
	}
}

// A patch, applied to a machine's configuration as `talosctl patch machineconfig` does.
func TestTalosTakesThePatch(t *testing.T) {
	t.Parallel()
	patch, err := configpatcher.LoadPatch([]byte(config(t, facts, "talos")))
	require.NoError(t, err)
	machine, err := configloader.NewFromBytes([]byte("version: v1alpha1\nmachine:\n  type: worker\n  kernel:\n    modules:\n      - name: br_netfilter\n"))
	require.NoError(t, err)
	patched, err := configpatcher.Apply(configpatcher.WithConfig(machine), []configpatcher.Patch{patch})
	require.NoError(t, err)
	result, err := patched.Config()
	require.NoError(t, err)
	var names []string
	for _, module := range result.RawV1Alpha1().MachineConfig.MachineKernel.KernelModules {
		require.IsType(t, &talos.KernelModuleConfig{}, module)
		require.Empty(t, module.Parameters())
		names = append(names, module.Name())
	}
	require.Equal(t, append([]string{"br_netfilter"}, modules...), names, "what the machine loads already stays")
}

// Bottlerocket's settings are no Go module: its page settings.kernel says that a module has the booleans allowed and autoload.
func TestBottlerocketsSettingsAreTOMLOfItsSchema(t *testing.T) {
	t.Parallel()
	var document struct {
		Settings struct {
			Kernel struct {
				Modules map[string]struct {
					Allowed  bool `toml:"allowed"`
					Autoload bool `toml:"autoload"`
				} `toml:"modules"`
			} `toml:"kernel"`
		} `toml:"settings"`
	}
	data, err := toml.Decode(config(t, facts, "bottlerocket"), &document)
	require.NoError(t, err)
	require.Empty(t, data.Undecoded(), "no such setting")
	var names []string
	for name, module := range document.Settings.Kernel.Modules {
		require.True(t, module.Allowed && module.Autoload, name)
		names = append(names, name)
	}
	require.ElementsMatch(t, modules, names)
}

// systemd-modules-load reads one name a line, and skips lines that begin with # or ; (modules-load.d(5)).
func TestTheListForSystemdHasANameALine(t *testing.T) {
	t.Parallel()
	var names []string
	for line := range strings.Lines(config(t, facts, "modules-load")) {
		if line = strings.TrimSpace(line); line != "" && !strings.ContainsAny(line[:1], "#;") {
			require.Regexp(t, "^[A-Za-z0-9_]+$", line)
			names = append(names, line)
		}
	}
	require.Equal(t, modules, names)
}

// Each form begins with comments: where it comes from, how to apply it, what it leaves out, and the rules that it does not lift.
func TestEachFormSaysWhatItLeavesToAPerson(t *testing.T) {
	t.Parallel()
	const (
		file    = "# /usr/lib/modprobe.d/x.conf:2 keeps xt_owner from being loaded at boot: remove that line.\n"
		cmdline = "# /proc/cmdline:module_blacklist keeps xt_owner from being loaded at boot: remove xt_owner there.\n"
	)
	for _, form := range forms {
		text := config(t, facts, form)
		require.Regexp(t, regexp.MustCompile(`^# From the report on node worker-2\. To review, then: .+\.\n`), text)
		require.Contains(t, text, "\n# Not on this node's disk, so not below: no_such_module.\n")
		require.Contains(t, text, cmdline, form)
		require.Equal(t, !slices.Contains([]string{"machineconfig", "butane"}, form), strings.Contains(text, file), form)
		require.NotContains(t, strings.ReplaceAll(text, "below: no_such_module", ""), "no_such_module", form)
		require.NotContains(t, text, "nft_compat", "%s: it is built in", form)
	}
}

// It needs nothing, which is no failure: a comment in every form's language.
func TestANodeWithNothingToLoadHasNoConfiguration(t *testing.T) {
	t.Parallel()
	for _, form := range forms {
		text := config(t, "kernel 6.6\nmodule nf_tables built-in\nmissing xt_owner not-on-disk\nmissing xt_CT monolithic\n", form)
		require.Equal(t, "# Node worker-2 has nothing to load at boot: each module of the plan is built into its kernel, or not on its disk.\n", text, form)
	}
}

func TestAPodThatHasFoundNothingYetHasNoConfiguration(t *testing.T) {
	t.Parallel()
	for row, want := range map[string]string{
		"": "nothing is known of node worker-2 yet: load has not run.\n",
		"round 1\nuptime 1\nstatus True\nline NotSelected: not meant\nmessage A sentence.\nreason NotSelected\nsubject not meant\nsentence A sentence.\n": "node worker-2: NotSelected: not meant. Ask on a node that is selected.\n",
	} {
		text, said, exit := reportOn(t, row, "", "--config", "talos")
		require.Equal(t, 1, exit)
		require.Empty(t, text)
		require.Equal(t, want, said)
	}
	_, said, exit := reportOn(t, "", "")
	require.Equal(t, 1, exit)
	require.Equal(t, "nothing is known of node worker-2 yet: load has not run.\n", said)
}

func TestAnArgumentThatIsUnknownIsNamedWithWhatIsAllowed(t *testing.T) {
	t.Parallel()
	const allowed = " is unknown. Use modules-load, machineconfig, talos, bottlerocket or butane.\n"
	for _, row := range []struct {
		arguments []string
		said      string
	}{
		{[]string{"--config", "nixos"}, `--config "nixos"` + allowed},
		{[]string{"--config=Talos"}, `--config "Talos"` + allowed},
		{[]string{"--config"}, `--config ""` + allowed},
		{[]string{"--config", "talos", "butane"}, `--config "talos butane"` + allowed},
		{[]string{"--config", "a\"b\n\x1b[1m\xff"}, `--config "a\"b??[1m?"` + allowed},
		{[]string{"--yaml"}, "\"--yaml\" is unknown. Use report, report --json or report --config FORM.\n"},
		{[]string{"condition"}, "\"condition\" is unknown. Use report, report --json or report --config FORM.\n"},
	} {
		text, said, exit := report(t, facts, row.arguments...)
		require.Equal(t, 2, exit, row.arguments)
		require.Empty(t, text, row.arguments)
		require.Equal(t, row.said, said)
	}
	with, _, exit := report(t, facts, "--config=talos")
	require.Zero(t, exit)
	require.Equal(t, config(t, facts, "talos"), with)
}
