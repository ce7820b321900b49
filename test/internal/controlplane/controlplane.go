// Package controlplane is the only place in the suite that knows how to run Kubernetes' own control plane on loopback: etcd, the API server,
// the scheduler and the controllers. Nodes exist only in the API, and their pods become Ready without that a container runs.
package controlplane

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
	"syscall"
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
	// patience is for what takes seconds on a machine that does nothing else.
	patience = 4 * time.Minute
	interval = 200 * time.Millisecond
)

// Plane is a control plane of one version, and a fleet of nodes that exist only in its API. Its administrator is in system:masters. Each
// controller has its own service account, as kubeadm and OpenShift have it.
type Plane struct {
	Version    string // as x.y.z
	Minor      int
	Kubeconfig string // a file, the administrator's
	Config     *rest.Config
	Client     *kubernetes.Clientset
	Nodes      []Node // oldest kubelet first
}

// Start returns the control plane that all tests of a package share, and starts it if there is none yet. A package that calls it calls
// Stop in its TestMain. If no Kubernetes is built the test is skipped: unproven says what is then not proven, as a clause, and run is the
// command that proves it.
func Start(t *testing.T, unproven, run string) *Plane {
	t.Helper()
	if os.Getenv(binaries) == "" {
		t.Skipf("NOT PROVEN: %s. No Kubernetes is built. Run: %s", unproven, run)
	}
	p, err := Shared()
	require.NoError(t, err)
	return p
}

// Shared returns what Start returns, outside of a test, or the error by which it could not start, with the ends of the logs.
var Shared = sync.OnceValues(start)

// stop ends what start has started.
var stop = func() {}

// Stop ends the processes of the control plane that Start has started, if any, and removes their files.
func Stop() { stop() }

// start starts a control plane in a directory of its own.
func start() (*Plane, error) {
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
		process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a run that is killed calls no Stop
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

	p := &Plane{Kubeconfig: path("kubeconfig")}
	p.Config = &rest.Config{
		Host: "https://127.0.0.1:" + secure, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, // loopback, a minute old
		QPS: 1000, Burst: 1000,
	}
	if p.Client, err = kubernetes.NewForConfig(p.Config); err != nil {
		return nil, err
	}
	if err := Eventually(ctx, func() bool {
		ready, err := p.Client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil && bytes.Equal(ready, []byte("ok"))
	}); err != nil {
		return nil, failed(fmt.Errorf("the API server does not become ready: %w", err))
	}
	version, err := p.Client.ServerVersion()
	if err != nil {
		return nil, err
	}
	p.Version = strings.TrimPrefix(version.GitVersion, "v")
	if p.Minor, err = strconv.Atoi(version.Minor); err != nil {
		return nil, err
	}

	credentials := clientcmd.NewDefaultClientConfigLoadingRules()
	credentials.ExplicitPath = p.Kubeconfig
	if err := os.WriteFile(p.Kubeconfig, fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c,
  clusters: [{name: c, cluster: {server: "%s", insecure-skip-tls-verify: true}}],
  users: [{name: c, user: {token: %s}}], contexts: [{name: c, context: {cluster: c, user: c}}]}`, p.Config.Host, token), 0o600); err != nil {
		return nil, err
	}
	if err := run("kube-scheduler", "--kubeconfig", p.Kubeconfig, "--secure-port", "0", "--leader-elect=false"); err != nil {
		return nil, err
	}
	controllers := "daemonset,job,garbagecollector,serviceaccount"
	if p.Policies() {
		// says what is wrong with a policy's expressions
		controllers += ",validatingadmissionpolicy-status-controller"
	}
	if err := run("kube-controller-manager", "--kubeconfig", p.Kubeconfig, "--secure-port", "0", "--leader-elect=false",
		"--use-service-account-credentials", "--controllers", controllers); err != nil {
		return nil, err
	}
	if err := p.addFleet(ctx); err != nil {
		return nil, failed(err)
	}
	go p.playKubelets(ctx)
	return p, nil
}

// Policies is whether this version has ValidatingAdmissionPolicies, without which the chart refuses signals.
func (p *Plane) Policies() bool { return p.Minor >= 30 }

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

// Eventually waits until done returns true, for as long as a busy machine needs. It returns an error if that is too long, or if the context
// ends.
func Eventually(ctx context.Context, done func() bool) error {
	deadline := time.Now().Add(patience)
	for !done() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("not within %v", patience)
		}
		time.Sleep(interval)
	}
	return nil
}

// Helm runs helm as the administrator in a namespace and returns what it prints, and its error.
func (p *Plane) Helm(t *testing.T, namespace string, args ...string) (string, error) {
	t.Helper()
	options := chart.Helm3.Options(t)
	options.KubectlOptions = k8s.NewKubectlOptions("", p.Kubeconfig, namespace)
	options.KubectlOptions.Logger = logger.Discard
	return helm.RunHelmCommandAndGetOutputContextE(t, t.Context(), options, args[0], args[1:]...)
}

// Install installs the chart with values, a YAML document, or upgrades to these, in a namespace. More of helm's arguments may follow.
func (p *Plane) Install(t *testing.T, namespace, values string, helmArgs ...string) {
	t.Helper()
	args := append([]string{"upgrade", "--install", "--create-namespace", "--values", chart.ValuesFile(t, values), chart.Release, chart.Path()}, helmArgs...)
	output, err := p.Helm(t, namespace, args...)
	require.NoError(t, err, output)
}

// Namespace creates one with annotations.
func (p *Plane) Namespace(t *testing.T, name string, annotations map[string]string) {
	t.Helper()
	_, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}, metav1.CreateOptions{})
	require.NoError(t, err)
}
