// Package kubernetes asks one question: does a version of Kubernetes take what the chart renders, and does each node get its pod, whatever the
// version of its kubelet? etcd, the API server, the scheduler and the controllers run on loopback. Nodes exist only in the API.
package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gruntwork-io/terratest/modules/helm"
	"github.com/gruntwork-io/terratest/modules/k8s"
	"github.com/gruntwork-io/terratest/modules/logger"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const (
	// binaries names the directory of etcd, kube-apiserver, kube-controller-manager and kube-scheduler, all of one version of Kubernetes.
	binaries = "KUBERNETES_BINARIES"
	// table names the file to which the version's row is appended if all tests pass.
	table = "KUBERNETES_TABLE"
	// patience is for what takes seconds on a machine that does nothing else.
	patience = 4 * time.Minute
	interval = 200 * time.Millisecond
)

// plane is a control plane of one version, and a fleet of nodes that exist only in its API.
type plane struct {
	version    string // as x.y.z
	minor      int
	kubeconfig string
	config     *rest.Config
	client     *kubernetes.Clientset
	nodes      []node // oldest kubelet first
}

// start starts the control plane that all tests share, and its fleet.
func start(t *testing.T) *plane {
	t.Helper()
	if os.Getenv(binaries) == "" {
		t.Skip("NOT PROVEN: that API servers take the chart, and nodes of mixed versions get their pods. No Kubernetes is built. Run: make test-kubernetes")
	}
	p, err := shared()
	require.NoError(t, err)
	return p
}

var (
	shared = sync.OnceValues(newPlane)
	// stop ends what newPlane has started.
	stop = func() {}
	// proven is what the table says of this version: set by the tests.
	proven sync.Map
)

func TestMain(m *testing.M) {
	code := m.Run()
	if file := os.Getenv(table); code == 0 && file != "" {
		code = document(file)
	}
	stop()
	os.Exit(code)
}

// document appends the version's row.
func document(file string) int {
	p, err := shared()
	if err != nil {
		return 1
	}
	cells := []string{p.version}
	for _, column := range []string{"scenarios", "signals", "fleet"} {
		cell, ok := proven.Load(column)
		if !ok {
			return 1
		}
		cells = append(cells, cell.(string))
	}
	output, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(output, "| %s |\n", strings.Join(cells, " | "))
	}
	if err == nil {
		err = output.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// newPlane starts a control plane in a directory of its own.
func newPlane() (*plane, error) {
	dir, err := os.MkdirTemp("", "kubernetes-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var processes []*exec.Cmd
	stop = func() {
		cancel()
		for _, process := range processes {
			_ = process.Process.Kill()
			_ = process.Wait()
		}
		_ = os.RemoveAll(dir)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	run := func(name string, args ...string) error {
		log, err := os.Create(path(name + ".log"))
		if err != nil {
			return err
		}
		defer log.Close()
		process := exec.Command(filepath.Join(os.Getenv(binaries), name), args...)
		process.Stdout, process.Stderr, process.Dir = log, log, dir
		if err := process.Start(); err != nil {
			return err
		}
		processes = append(processes, process)
		return nil
	}
	// failed adds to an error what the processes say.
	failed := func(err error) error {
		logs, _ := filepath.Glob(path("*.log"))
		for _, log := range logs {
			content, _ := os.ReadFile(log)
			err = fmt.Errorf("%w\n%s:\n%s", err, filepath.Base(log), content[max(0, len(content)-2000):])
		}
		return err
	}

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	const token = "administrator"
	for name, content := range map[string][]byte{
		"key":    pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"tokens": []byte(token + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			return nil, err
		}
	}

	etcd, secure, err := ports()
	if err != nil {
		return nil, err
	}
	store := "http://127.0.0.1:" + etcd
	if err := run("etcd", "--data-dir", path("etcd"), "--listen-client-urls", store, "--advertise-client-urls", store,
		"--listen-peer-urls", "http://localhost:0", "--unsafe-no-fsync", "--log-level", "error"); err != nil {
		return nil, err
	}
	if err := run("kube-apiserver", "--etcd-servers", store, "--bind-address", "127.0.0.1", "--secure-port", secure, "--cert-dir", path("certificates"),
		"--token-auth-file", path("tokens"), "--authorization-mode", "RBAC", "--allow-privileged", "--service-cluster-ip-range", "10.0.0.0/24",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", path("key"), "--service-account-signing-key-file", path("key")); err != nil {
		return nil, err
	}

	p := &plane{kubeconfig: path("kubeconfig")}
	p.config = &rest.Config{
		Host: "https://127.0.0.1:" + secure, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, // loopback, a minute old
		QPS: 1000, Burst: 1000,
	}
	if p.client, err = kubernetes.NewForConfig(p.config); err != nil {
		return nil, err
	}
	if err := eventually(ctx, func() bool {
		ready, err := p.client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil && bytes.Equal(ready, []byte("ok"))
	}); err != nil {
		return nil, failed(fmt.Errorf("the API server does not become ready: %w", err))
	}
	version, err := p.client.ServerVersion()
	if err != nil {
		return nil, err
	}
	p.version = strings.TrimPrefix(version.GitVersion, "v")
	if p.minor, err = strconv.Atoi(version.Minor); err != nil {
		return nil, err
	}

	credentials := clientcmd.NewDefaultClientConfigLoadingRules()
	credentials.ExplicitPath = p.kubeconfig
	if err := os.WriteFile(p.kubeconfig, fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c,
  clusters: [{name: c, cluster: {server: "%s", insecure-skip-tls-verify: true}}],
  users: [{name: c, user: {token: %s}}], contexts: [{name: c, context: {cluster: c, user: c}}]}`, p.config.Host, token), 0o600); err != nil {
		return nil, err
	}
	if err := run("kube-scheduler", "--kubeconfig", p.kubeconfig, "--secure-port", "0", "--leader-elect=false"); err != nil {
		return nil, err
	}
	controllers := "daemonset,serviceaccount"
	if p.policies() {
		// says what is wrong with a policy's expressions
		controllers += ",validatingadmissionpolicy-status-controller"
	}
	if err := run("kube-controller-manager", "--kubeconfig", p.kubeconfig, "--secure-port", "0", "--leader-elect=false", "--controllers", controllers); err != nil {
		return nil, err
	}
	if err := p.addFleet(ctx); err != nil {
		return nil, failed(err)
	}
	go p.playKubelets(ctx)
	return p, nil
}

// policies is whether this version has ValidatingAdmissionPolicies, without which the chart refuses signals.
func (p *plane) policies() bool { return p.minor >= 30 }

// ports returns two free ones.
func ports() (string, string, error) {
	var found []string
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer listener.Close()
		found = append(found, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	}
	return found[0], found[1], nil
}

// eventually waits until done returns true.
func eventually(ctx context.Context, done func() bool) error {
	deadline := time.Now().Add(patience)
	for !done() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("not within %v", patience)
		}
		time.Sleep(interval)
	}
	return nil
}

// helm runs helm in a namespace and returns what it prints, and its error.
func (p *plane) helm(t *testing.T, namespace string, args ...string) (string, error) {
	t.Helper()
	options := chart.Helm3.Options(t)
	options.KubectlOptions = k8s.NewKubectlOptions("", p.kubeconfig, namespace)
	options.KubectlOptions.Logger = logger.Discard
	return helm.RunHelmCommandAndGetOutputContextE(t, t.Context(), options, args[0], args[1:]...)
}

// install installs the chart with values, a YAML document, or upgrades to these, in a namespace. More of helm's arguments may follow.
func (p *plane) install(t *testing.T, namespace, values string, helmArgs ...string) {
	t.Helper()
	args := append([]string{"upgrade", "--install", "--create-namespace", "--values", chart.ValuesFile(t, values), chart.Release, chart.Path()}, helmArgs...)
	output, err := p.helm(t, namespace, args...)
	require.NoError(t, err, output)
}

// namespace creates one with annotations.
func (p *plane) namespace(t *testing.T, name string, annotations map[string]string) {
	t.Helper()
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}, metav1.CreateOptions{})
	require.NoError(t, err)
}
