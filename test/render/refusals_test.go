package render

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestBadValuesAreRefusedWithWhatIsWrongWhatIsAllowedAndWhatToDo(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		values   string
		sentence string
	}{
		{"unknown key", `imge: {}`, `additional properties 'imge' not allowed`},
		{"unknown nested key", `image: {tagg: "1"}`, `at '/image': additional properties 'tagg' not allowed`},
		{"unknown group of modules", `modules: {quic: {nft: [a]}}`, `at '/modules': additional properties 'quic' not allowed`},
		{"unknown backend of a group", `modules: {base: {ebpf: [a]}}`, `at '/modules/base': additional properties 'ebpf' not allowed`},
		{"wrong type", `watch: {interval: often}`, `at '/watch/interval': got string, want integer`},
		{"fractional interval", `watch: {interval: 1.5}`, `at '/watch/interval': got number, want integer`},
		{"toleration key misspelt", `tolerations: [{oparator: Exists}]`, `at '/tolerations/0': additional properties 'oparator' not allowed`},
		{"unknown backend", `backend: ebpf`,
			`backend "ebpf" is unknown: allowed are auto, nft, legacy, native-nft. Set backend=auto to follow the mesh's Istio version.`},
		{"native-nft with an Istio that has none", `{backend: native-nft, image: {tag: 1.26.4}}`,
			`backend native-nft needs Istio 1.27 or later, and the image tag "1.26.4" is Istio 1.26.4. Set backend=auto`},
		{"the mesh's own native-nft with an Istio that has none", `global: {nativeNftables: true, tag: 1.26.4}`,
			`backend native-nft needs Istio 1.27 or later, and the image tag "1.26.4" is Istio 1.26.4. Set backend=auto without global.nativeNftables`},
		{"nft with an Istio that has legacy", `{backend: nft, image: {tag: 1.25.5}}`,
			`backend nft is not what Istio 1.25.5 of the image tag "1.25.5" uses: it runs the image's iptables, which is iptables-legacy, and obeys FORCE_IPTABLES_BINARY only from 1.28 on. Set backend=auto, or mesh.cni=true`},
		{"a dual-stack mesh without IPv6", `mesh: {dualStack: true, ipv6: false}`,
			`mesh.dualStack needs mesh.ipv6, and mesh.ipv6 is false: allowed are both, mesh.ipv6 alone, and neither. Set mesh.ipv6=true`},
		{"unknown preset", `nodes: {preset: suse}`,
			`nodes.preset "suse" is unknown: allowed are all, openshift, rhel-nfd. Set nodes.preset=all`},
		{"a list of systems in one word", `nodes: {osRelease: ["rhel centos"]}`,
			`nodes.osRelease: "rhel centos" is no ID of os-release: allowed are letters, digits, '.', '_' and '-'. Name each system as ID or ID_LIKE in /etc/os-release does, e.g. rhel.`},
		{"a system that runs a command", `nodes: {osRelease: ["$(reboot)"]}`, `nodes.osRelease: "$(reboot)" is no ID of os-release`},
		{"a quota of none", `resourceQuotas: {pods: 0}`, `at '/resourceQuotas/pods': minimum: got 0, want 1`},
		{"unknown scope of the mesh", `global: {resourceScope: nodes}`,
			`global.resourceScope "nodes" is unknown: allowed are all, cluster, namespace, as in Istio's charts. Leave it out to install everything.`},
		{"unknown pull policy", `image: {pullPolicy: Sometimes}`,
			`pull policy "Sometimes" is unknown: allowed are Always, IfNotPresent, Never. Set image.pullPolicy`},
		{"unknown pull policy of the mesh", `global: {imagePullPolicy: sometimes}`,
			`pull policy "sometimes" is unknown: allowed are Always, IfNotPresent, Never. Set image.pullPolicy, or the mesh's global.imagePullPolicy`},
		{"distroless tag", `image: {tag: 1.31.1-distroless}`,
			`image tag "1.31.1-distroless" has no shell, and the pod's scripts need one: allowed is any other variant. Set image.tag=1.31.1.`},
		{"distroless tag of the mesh", `global: {tag: 1.31.1-distroless}`, `Set image.tag=1.31.1.`},
		{"malformed tag", `image: {tag: "1.31.1@sha256"}`,
			`image tag "1.31.1@sha256" is no tag: allowed are up to 128 letters, digits, '_', '.' and '-'`},
		{"malformed digest", `image: {digest: "sha256:abc"}`,
			`image.digest "sha256:abc" is no digest: allowed is sha256: and 64 lower-case hex digits.`},
		{"module name with a space", `modules: {extra: ["xt owner"]}`,
			`modules.extra: "xt owner" is no module name: allowed are letters, digits, '_' and '-', alternatives separated by '|'. Name the module as modprobe does`},
		{"module name with a path", `modules: {base: {nft: [../nf_tables]}}`, `modules.base.nft: "../nf_tables" is no module name`},
		{"module name that is an option", `modules: {extra: ["a|"]}`, `modules.extra: "a|" is no module name`},
		{"module name that runs a command", `modules: {extra: ["a;reboot"]}`, `modules.extra: "a;reboot" is no module name`},
		{"module name with a line break", `modules: {extra: ["a\nb"]}`, `is no module name`},
		{"empty plan", `{modules: {base: {nft: []}}, mesh: {dns: false}}`,
			`the plan is empty: modules has no name for backend nft and the chosen mesh modes, and at least one is needed. Fill modules.base or modules.extra`},
		{"interval zero", `watch: {interval: 0}`, `watch.interval 0 is too short: allowed are whole seconds from 1 on. Set watch.interval=60.`},
		{"negative interval", `watch: {interval: -5}`, `watch.interval -5 is too short`},
		{"startup probe that ends before it speaks", `watch: {startupProbe: {timeoutSeconds: 60}}`,
			`watch.startupProbe.timeoutSeconds 60 is too short: allowed are whole seconds from 120 on, since the probe waits before it repeats a reason. Set watch.startupProbe.timeoutSeconds=120.`},
		{"startup probe without a pause", `watch: {startupProbe: {periodSeconds: 0}}`,
			`watch.startupProbe.periodSeconds 0 is too short: allowed are whole seconds from 1 on. Set watch.startupProbe.periodSeconds=1.`},
		{"startup probe of one's own", `watch: {startupProbe: {exec: {command: ["true"]}}}`, `at '/watch/startupProbe': additional properties 'exec' not allowed`},
		{"the mesh's tag as a number", `global: {tag: 1.30}`,
			`global.tag 1.3 is no string, and YAML may have changed it: it reads 1.30 as the number 1.3. Allowed is a string. Quote it, e.g. global.tag: "1.31.1".`},
		{"the mesh's tag as a whole number", `global: {tag: 20260101}`, `is no string, and YAML may have changed it`},
		{"the mesh's tag as a list", `global: {tag: [a]}`, `global.tag [a] is no string`},
		{"the mesh's tag as zero", `global: {tag: 0}`, `global.tag 0 is no string`},
		{"own tag as a number", `image: {tag: 1.30}`, `at '/image/tag': got number, want string`},
		{"label that is no string", `commonLabels: {a: 1}`, `at '/commonLabels/a': got number, want string`},
		{"annotation that is no string", `commonAnnotations: {a: true}`, `at '/commonAnnotations/a': got boolean, want string`},
		{"repair that is no map", `repair: 5`, `at '/repair': got number, want string or object`},
		{"unknown key of repair", `repair: {mode: sandbox}`, `at '/repair': additional properties 'mode' not allowed`},
		{"variable given twice", `extraEnv: [{name: A, value: "1"}, {name: A, value: "2"}]`, `extraEnv: the name "A" is given twice: allowed is each name once. Remove one of the entries.`},
		{"variable of the chart's own", `extraEnv: [{name: ISTIO_OS_INIT_HOST, value: /}]`, `extraEnv: the name "ISTIO_OS_INIT_HOST" is set by the chart or by Kubernetes: allowed is any name but PATH`},
		{"variable that the report sets", `extraEnv: [{name: PATH, value: /bin}]`, `extraEnv: the name "PATH" is set by the chart or by Kubernetes`},
		{"variable that verify sets", `extraEnv: [{name: CLEANUP_ONLY, value: "true"}]`, `extraEnv: the name "CLEANUP_ONLY" is set`},
		{"variable that sends the token elsewhere", `extraEnv: [{name: KUBERNETES_SERVICE_HOST, value: example.com}]`, `extraEnv: the name "KUBERNETES_SERVICE_HOST" is set`},
		{"variable that backend sets", `{backend: nft, extraEnv: [{name: FORCE_IPTABLES_BINARY, value: legacy}]}`,
			`extraEnv: "FORCE_IPTABLES_BINARY" decides which modules a node needs: allowed is the value backend, which sets it. Remove the entry, and set backend.`},
		{"variable of a dual-stack mesh", `extraEnv: [{name: ISTIO_DUAL_STACK, value: "true"}]`, `Remove the entry, and set mesh.dualStack.`},
		{"variable of INVALID_DROP", `extraEnv: [{name: INVALID_DROP, value: "true"}]`, `Remove the entry, and set mesh.dropInvalid.`},
		{"signals without an account of their own", `{signals: {nodeCondition: {enabled: true}}, serviceAccount: {create: false}}`,
			`service account, and that is "default", which every pod of the namespace may have: allowed is one of its own. Set serviceAccount.create=true`},
		{"taint key that is none", `signals: {startupTaint: {key: "a b"}}`, `signals.startupTaint.key "a b" is no key for a taint of ours: allowed is`},
		{"taint key that ends a policy's string", `signals: {startupTaint: {key: "a\"||true"}}`, `is no key for a taint of ours`},
		{"taint key of Kubernetes' own", `signals: {nodeReadinessRule: {taintKey: node.kubernetes.io/not-ready}}`,
			`signals.nodeReadinessRule.taintKey "node.kubernetes.io/not-ready" is no key for a taint of ours`},
		{"rule on a condition that nobody writes", `signals: {nodeReadinessRule: {enabled: true}}`, `Set signals.nodeCondition.enabled=true.`},
		{"rule beside an affinity", `{signals: {nodeCondition: {enabled: true}, nodeReadinessRule: {enabled: true}}, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}}}`,
			`signals.nodeReadinessRule selects nodes by labels alone, and affinity.nodeAffinity chooses others`},
		{"unknown mode of the rule", `signals: {nodeCondition: {enabled: true}, nodeReadinessRule: {enabled: true, enforcementMode: once}}`,
			`signals.nodeReadinessRule.enforcementMode "once" is unknown: allowed are bootstrap-only, continuous. Set bootstrap-only`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			manifest, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, row.values)})
			require.ErrorContains(t, err, row.sentence)
			require.NotContains(t, manifest, "kind:", "something was rendered")
		})
	}
}

func TestEveryBadValueIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, `
image: {tag: -x, digest: md5:1}
backend: none
watch: {interval: 0}
`)})
	require.ErrorContains(t, err, `image tag "-x" is no tag`)
	require.ErrorContains(t, err, `image.digest "md5:1" is no digest`)
	require.ErrorContains(t, err, `backend "none" is unknown`)
	require.ErrorContains(t, err, `watch.interval 0 is too short`)
}
