package render

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestOwnValuesWinOverTheMeshsWhichWinOverDefaults(t *testing.T) {
	t.Parallel()
	const (
		globals = "global: {hub: mesh.example/istio, tag: 1.30.5, imagePullPolicy: Always, imagePullSecrets: [mesh]}\n"
		digest  = "sha256:d86cba0dd1eb15c00b6901c69ce5ae3d2d5f8427a47751098cf8c3ab2a4a62e9"
	)
	version := chart.AppVersion(t)
	for _, row := range []struct {
		name    string
		values  string
		image   string
		policy  corev1.PullPolicy
		secrets string
	}{
		{"defaults", "", "registry.istio.io/release/proxyv2:" + version, "IfNotPresent", ""},
		{"the mesh's", globals, "mesh.example/istio/proxyv2:1.30.5", "Always", "mesh"},
		{"own hub", globals + "image: {hub: own.example/}", "own.example/proxyv2:1.30.5", "Always", "mesh"},
		{"own tag", globals + "image: {tag: 1.29.0}", "mesh.example/istio/proxyv2:1.29.0", "Always", "mesh"},
		{"own pull policy", globals + "image: {pullPolicy: Never}", "mesh.example/istio/proxyv2:1.30.5", "Never", "mesh"},
		{"own pull secrets", globals + "imagePullSecrets: [own, {name: other}]", "mesh.example/istio/proxyv2:1.30.5", "Always", "own other"},
		{"own name", globals + "image: {name: proxyv2-fips}", "mesh.example/istio/proxyv2-fips:1.30.5", "Always", "mesh"},
		{"own whole image", globals + "image: {name: own.example/a/b}", "own.example/a/b:1.30.5", "Always", "mesh"},
		{"digest alone", "image: {digest: '" + digest + "'}", "registry.istio.io/release/proxyv2@" + digest, "IfNotPresent", ""},
		{"digest wins over the mesh's tag", globals + "image: {digest: '" + digest + "'}", "mesh.example/istio/proxyv2@" + digest, "Always", "mesh"},
		{"digest and own tag", "image: {tag: 1.31.0, digest: '" + digest + "'}", "registry.istio.io/release/proxyv2:1.31.0@" + digest, "IfNotPresent", ""},
		{"the mesh's secrets as objects", "global: {imagePullSecrets: [{name: mesh}]}", "registry.istio.io/release/proxyv2:" + version, "IfNotPresent", "mesh"},
		{"the mesh's distroless variant is not followed", "global: {variant: distroless}", "registry.istio.io/release/proxyv2:" + version, "IfNotPresent", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			pod := chart.Render(t, row.values).Pod(t)
			for _, container := range append(pod.InitContainers, pod.Containers...) {
				require.Equal(t, row.image, container.Image, container.Name)
				require.Equal(t, row.policy, container.ImagePullPolicy, container.Name)
			}
			var secrets []string
			for _, secret := range pod.ImagePullSecrets {
				secrets = append(secrets, secret.Name)
			}
			require.Equal(t, row.secrets, strings.Join(secrets, " "))
		})
	}
}
