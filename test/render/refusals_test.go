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
		{"unknown backend", `backend: ebpf`, `at '/backend': value must be one of 'auto', 'nft', 'legacy', 'native-nft'`},
		{"native-nft with an Istio that has none", `{backend: native-nft, image: {tag: 1.26.4}}`,
			`backend native-nft needs Istio 1.27 or later, and the image tag "1.26.4" is Istio 1.26.4. Set backend=auto`},
		{"the mesh's own native-nft with an Istio that has none", `global: {nativeNftables: true, tag: 1.26.4}`,
			`backend native-nft needs Istio 1.27 or later, and the image tag "1.26.4" is Istio 1.26.4. Set backend=auto without global.nativeNftables`},
		{"nft with an Istio that has legacy", `{backend: nft, image: {tag: 1.25.3}}`, `backend nft needs Istio 1.25.4 or later, and the image tag "1.25.3" is Istio 1.25.3. Set backend=auto, or mesh.cni=true if istio-cni programs the pods.`},
		{"a dual-stack mesh without IPv6", `mesh: {dualStack: true, ipv6: false}`,
			`mesh.dualStack needs mesh.ipv6, and mesh.ipv6 is false: allowed are both, mesh.ipv6 alone, and neither. Set mesh.ipv6=true`},
		{"a required value set to nothing", `backend: null`, `missing property 'backend'`},
		{"malformed tag of the mesh", `global: {tag: -x}`, `at '/global/tag': '-x' does not match pattern`},
		{"unknown preset", `nodes: {preset: suse}`, `at '/nodes/preset': value must be one of 'all', 'openshift', 'rhel-nfd'`},
		{"a list of systems in one word", `nodes: {osRelease: ["rhel centos"]}`, `at '/nodes/osRelease/0': 'rhel centos' does not match pattern`},
		{"a system that runs a command", `nodes: {osRelease: ["$(reboot)"]}`, `at '/nodes/osRelease/0': '$(reboot)' does not match pattern`},
		{"a quota of none", `resourceQuotas: {pods: 0}`, `at '/resourceQuotas/pods': minimum: got 0, want 1`},
		{"unknown scope of the mesh", `global: {resourceScope: nodes}`, `at '/global/resourceScope': 'nodes' does not match pattern '^(all|cluster|namespace)?$'`},
		{"unknown pull policy", `image: {pullPolicy: Sometimes}`, `at '/image/pullPolicy': value must be one of '', 'Always', 'IfNotPresent', 'Never'`},
		{"unknown pull policy of the mesh", `global: {imagePullPolicy: sometimes}`, `at '/global/imagePullPolicy': 'sometimes' does not match pattern '^(Always|IfNotPresent|Never)?$'`},
		{"distroless tag", `image: {tag: 1.31.1-distroless}`,
			`image tag "1.31.1-distroless" has no shell, and the pod's scripts need one: allowed is any other variant. Set image.tag=1.31.1.`},
		{"distroless tag of the mesh", `global: {tag: 1.31.1-distroless}`, `Set image.tag=1.31.1.`},
		{"malformed tag", `image: {tag: "1.31.1@sha256"}`, `at '/image/tag': '1.31.1@sha256' does not match pattern`},
		{"malformed digest", `image: {digest: "sha256:abc"}`, `at '/image/digest': 'sha256:abc' does not match pattern`},
		{"module name with a space", `modules: {extra: ["xt owner"]}`, `at '/modules/extra/0': 'xt owner' does not match pattern`},
		{"module name with a path", `modules: {base: {nft: [../nf_tables]}}`, `at '/modules/base/nft/0': '../nf_tables' does not match pattern`},
		{"module name that is an option", `modules: {extra: ["a|"]}`, `at '/modules/extra/0': 'a|' does not match pattern`},
		{"module name that runs a command", `modules: {extra: ["a;reboot"]}`, `at '/modules/extra/0': 'a;reboot' does not match pattern`},
		{"module name with a line break", `modules: {extra: ["a\nb"]}`, `at '/modules/extra/0': 'a\nb' does not match pattern`},
		{"empty plan", `{modules: {base: {nft: []}}, mesh: {dns: false}}`,
			`the plan is empty: modules has no name for backend nft and the chosen mesh modes, and at least one is needed. Fill modules.base or modules.extra`},
		{"interval zero", `watch: {interval: 0}`, `at '/watch/interval': minimum: got 0, want 1`},
		{"negative interval", `watch: {interval: -5}`, `at '/watch/interval': minimum: got -5, want 1`},
		{"startup probe that ends before it speaks", `watch: {startupProbe: {timeoutSeconds: 60}}`, `at '/watch/startupProbe/timeoutSeconds': minimum: got 60, want 300`},
		{"startup probe without a pause", `watch: {startupProbe: {periodSeconds: 0}}`, `at '/watch/startupProbe/periodSeconds': minimum: got 0, want 1`},
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
		{"variable of native nftables", `extraEnv: [{name: NATIVE_NFTABLES, value: "true"}]`, `Remove the entry, and set global.nativeNftables.`},
		{"variable without a name", `extraEnv: [{value: x}]`, `Name the entry {"value":"x"}, or remove it.`},
		{"ambient by native nftables before Istio has it", `{global: {nativeNftables: true, tag: 1.27.3}, mesh: {ambient: true}}`, `mesh.ambient with backend native-nft needs Istio 1.28 or later, and the image tag "1.27.3" is Istio 1.27.3.`},
		{"ambient before its rules were in pods", `{global: {tag: 1.20.8}, mesh: {ambient: true}}`, `mesh.ambient with backend legacy needs Istio 1.21 or later`},
		{"dual stack before istio-init obeys ISTIO_DUAL_STACK", `{global: {tag: 1.18.7}, mesh: {dualStack: true}}`, `mesh.dualStack needs Istio 1.19 or later, and the image tag "1.18.7" is Istio 1.18.7.`},
		{"signals without an account of their own", `{signals: {nodeCondition: {enabled: true}}, serviceAccount: {create: false}}`,
			`signals.nodeCondition and signals.startupTaint: the rights on nodes would be those of service account "default", which every pod of the namespace may have: allowed is one of its own. Set serviceAccount.create=true`},
		{"an SCC for every pod of the namespace", `{global: {platform: openshift}, serviceAccount: {create: false}}`, `openshift.scc.create: the rights on nodes would be those of service account "default"`},
		{"an SCC for an account that is called default", `{global: {platform: openshift}, serviceAccount: {name: default}}`, `openshift.scc.create: the rights on nodes`},
		{"names that decide on two backends", `{verify: {enabled: false}, image: {tag: nightly}}`,
			`verify.enabled=false and image tag "nightly", which names no version of Istio: without a proof every module of backends legacy,nft would have to be there`},
		{"taint key that is none", `signals: {startupTaint: {key: "a b"}}`, `at '/signals/startupTaint/key': 'a b' does not match pattern`},
		{"taint key that ends a policy's string", `signals: {startupTaint: {key: "a\"||true"}}`, `at '/signals/startupTaint/key': 'a"||true' does not match pattern`},
		{"taint key of Kubernetes' own", `signals: {nodeReadinessRule: {taintKey: node.kubernetes.io/not-ready}}`,
			`signals.nodeReadinessRule.taintKey "node.kubernetes.io/not-ready" is no key for a taint of ours`},
		{"rule on a condition that nobody writes", `signals: {nodeReadinessRule: {enabled: true}}`, `Set signals.nodeCondition.enabled=true.`},
		{"rule beside an affinity", `{signals: {nodeCondition: {enabled: true}, nodeReadinessRule: {enabled: true}}, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}}}`,
			`signals.nodeReadinessRule selects nodes by labels alone, and affinity.nodeAffinity chooses others`},
		{"unknown mode of the rule", `signals: {nodeCondition: {enabled: true}, nodeReadinessRule: {enabled: true, enforcementMode: once}}`, `at '/signals/nodeReadinessRule/enforcementMode': value must be one of 'bootstrap-only', 'continuous'`},
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
	for values, sentences := range map[string][]string{
		// by the schema
		`{image: {tag: -x, digest: "md5:1"}, backend: none, watch: {interval: 0}}`: {`at '/image/tag'`, `at '/image/digest'`, `at '/backend'`, `at '/watch/interval'`},
		// by the templates
		`{image: {tag: 1.26.4-distroless}, backend: native-nft, mesh: {dualStack: true, ipv6: false}}`: {`has no shell`, `needs Istio 1.27`, `needs mesh.ipv6`},
	} {
		_, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, values)})
		for _, sentence := range sentences {
			require.ErrorContains(t, err, sentence)
		}
	}
}
