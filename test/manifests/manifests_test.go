// Package manifests holds what is in deploy/ against its own tools: compose.yaml against the Compose specification, the
// Kubernetes manifests, as kustomize builds them, against the types of the API. It is a module of its own, so that usher
// does not depend on them.
package manifests

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var root = filepath.Join("..", "..")

func TestCompose(t *testing.T) {
	t.Parallel()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")},
		cli.WithEnv([]string{"MASTER_KEY=k", "POSTGRES_PASSWORD=p", "NATS_PASSWORD=n"}), cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "nats", "roles", "migrate", "grants", "api", "publisher", "projections", "webhooks", "prometheus", "grafana", "mail"} {
		if _, err := project.GetService(name); err != nil {
			t.Error(err)
		}
	}
	for name, s := range project.Services {
		for dependency := range s.DependsOn {
			if _, err := project.GetService(dependency); err != nil {
				t.Errorf("%s depends on %s: %v", name, dependency, err)
			}
		}
		if s.Image == "usher" && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"})) {
			t.Errorf("%s may write to its image, or has capabilities", name)
		}
	}
	if api := project.Services["api"]; len(api.Ports) != 1 || api.Environment["DATABASE_URL"] == nil || !strings.Contains(*api.Environment["DATABASE_URL"], "usher_api:p@") {
		t.Errorf("api = %+v", project.Services["api"])
	}
}

func TestComposeWantsSecrets(t *testing.T) {
	t.Parallel()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := options.LoadProject(t.Context()); err == nil || !strings.Contains(err.Error(), ".env.example") {
		t.Errorf("without secrets: %v, want one that says where to set them", err)
	}
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, "deploy", "kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme, autoscalingv2.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	// Strict: a field that the API does not have is an error, and not passed over.
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	kinds := map[string]int{}
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(raw)))
	buffer := make([]byte, 1<<20)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := decoder.Decode(buffer[:n], nil, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, buffer[:n])
			continue
		}
		kinds[kind.Kind]++
		switch o := object.(type) {
		case *appsv1.Deployment:
			checkPod(t, o.Name, o.Spec.Template.Spec, true)
			if *o.Spec.Replicas < 2 {
				t.Errorf("%s has %d replicas, want two at least", o.Name, *o.Spec.Replicas)
			}
		case *batchv1.Job:
			checkPod(t, o.Name, o.Spec.Template.Spec, false)
		}
	}
	for kind, least := range map[string]int{"Deployment": 4, "Job": 1, "Service": 1, "PodDisruptionBudget": 4, "HorizontalPodAutoscaler": 1, "ConfigMap": 1} {
		if kinds[kind] < least {
			t.Errorf("%d of kind %s, want %d", kinds[kind], kind, least)
		}
	}
	if kinds["Secret"] > 0 {
		t.Error("secrets are among the manifests")
	}
}

// checkPod wants what the restricted Pod Security Standard wants, and secrets by reference only.
func checkPod(t *testing.T, name string, pod corev1.PodSpec, probed bool) {
	t.Helper()
	if pod.SecurityContext == nil || pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile == nil {
		t.Errorf("%s may run as root", name)
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Drop) != 1 {
			t.Errorf("%s has rights that it does not need", name)
		}
		if probed && (c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil) {
			t.Errorf("%s is not probed", name)
		}
		if c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has no limit of memory", name)
		}
		for _, e := range c.Env {
			secret := strings.HasSuffix(e.Name, "_URL") || strings.Contains(e.Name, "KEY") || strings.Contains(e.Name, "PASSWORD")
			if secret && (e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil) {
				t.Errorf("%s: %s is not taken from a secret", name, e.Name)
			}
		}
	}
}
