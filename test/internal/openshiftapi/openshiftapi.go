// Package openshiftapi gives a cluster of Kubernetes the API of OpenShift's SecurityContextConstraints, as OpenShift defines it. While it is
// served every release of the chart in that cluster takes the cluster for OpenShift. Serving it admits and refuses no pod.
package openshiftapi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Path is that of the objects.
const Path = "/apis/security.openshift.io/v1/securitycontextconstraints"

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// Serve creates OpenShift's own CustomResourceDefinition, that of the module github.com/openshift/api, and waits until the API server serves
// it. It returns an error if that takes longer than patience.
func Serve(ctx context.Context, client rest.Interface, patience time.Duration) error {
	module, err := chart.ModuleDir(ctx, "", "github.com/openshift/api")
	if err != nil {
		return err
	}
	definition, err := os.ReadFile(filepath.Join(module, "security", "v1", "zz_generated.crd-manifests",
		"0000_03_config-operator_01_securitycontextconstraints.crd.yaml"))
	if err != nil {
		return err
	}
	if definition, err = yaml.YAMLToJSON(definition); err != nil {
		return err
	}
	if err := client.Post().AbsPath(definitions).SetHeader("Content-Type", "application/json").Body(definition).Do(ctx).Error(); err != nil {
		return err
	}
	return until(patience, func() bool { return served(ctx, client) == nil }, "is not served")
}

// Remove removes it, with all objects, and waits until the API server no longer serves it. It returns an error if that takes longer than
// patience.
func Remove(ctx context.Context, client rest.Interface, patience time.Duration) error {
	if err := client.Delete().AbsPath(definitions, "securitycontextconstraints.security.openshift.io").Do(ctx).Error(); err != nil {
		return err
	}
	return until(patience, func() bool { return apierrors.IsNotFound(served(ctx, client)) }, "is still served")
}

func served(ctx context.Context, client rest.Interface) error {
	return client.Get().AbsPath(Path).Do(ctx).Error()
}

func until(patience time.Duration, done func() bool, not string) error {
	for deadline := time.Now().Add(patience); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the API of SecurityContextConstraints %s after %v", not, patience)
		}
	}
	return nil
}
