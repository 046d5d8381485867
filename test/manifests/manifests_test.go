// Package manifests holds what is in deploy/ against its own tools: compose.yaml against the Compose specification, the
// Kubernetes manifests, as kustomize builds them, against the types of the API. It is a module of its own, so that usher
// does not depend on them.
package manifests

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
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
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithProfiles([]string{"*"}),
		cli.WithEnv(secrets(t)), cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "nats", "roles", "migrate", "grants", "api", "publisher", "projections", "webhooks", "operator", "purge", "prometheus", "grafana", "mail"} {
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
		if s.Image == "usher" && works(s.Command) {
			checkLedger(t, name, s)
		}
	}
	if purge := project.Services["purge"]; !slices.Equal(purge.Profiles, []string{"purge"}) || purge.Restart != "no" {
		t.Errorf("purge is started with the others, or again and again: %+v", purge)
	}
	if api := project.Services["api"]; len(api.Ports) != 1 || api.Environment["DATABASE_URL"] == nil || !strings.Contains(*api.Environment["DATABASE_URL"], "usher_api:of_POSTGRES_API_PASSWORD@") {
		t.Errorf("api = %+v", project.Services["api"])
	}
}

// secrets are the settings that .env.example has without a value, each with one of its own.
func secrets(t *testing.T) (env []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if name, is := strings.CutSuffix(line, "=\n"); is && !strings.HasPrefix(name, "#") {
			env = append(env, name+"=of_"+name)
		}
	}
	return env
}

// works says whether a command line is that of a process that runs on: it looks into the ledger of erasures at its start.
func works(args []string) bool {
	return slices.Contains([]string{"serve", "publish --continuous", "project", "webhooks run"}, strings.Join(args, " "))
}

// ledger is where the ledger of erasures is, in every container.
const ledger = "/ledger/erasures.log"

// checkLedger wants the ledger in a volume that all share, and that the API alone can write to.
func checkLedger(t *testing.T, name string, s types.ServiceConfig) {
	t.Helper()
	if at := s.Environment["ERASURE_LEDGER"]; at == nil || *at != ledger {
		t.Errorf("%s does not know the ledger of erasures", name)
	}
	i := slices.IndexFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == filepath.Dir(ledger) })
	if i < 0 || s.Volumes[i].Source != "ledger" || s.Volumes[i].ReadOnly != (name != "api") {
		t.Errorf("%s has the volumes %+v, want the ledger among them, written by the API alone", name, s.Volumes)
	}
}

// The image has the directory of the ledger, and its user owns it: a new volume that is mounted there takes that over.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "COPY --from=build --chown=nonroot:nonroot /ledger /ledger\n"; !strings.Contains(string(raw), want) {
		t.Errorf("the image lacks %q", want)
	}
}

func TestComposeWantsSecrets(t *testing.T) {
	t.Parallel()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := options.LoadProject(t.Context()); err == nil || !strings.Contains(err.Error(), "deploy/secrets.sh") {
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
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme, autoscalingv2.AddToScheme, networkingv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	// Strict: a field that the API does not have is an error, and not passed over.
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	kinds, denies := map[string]int{}, false
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
			checkPodLedger(t, o.Name, o.Spec.Template.Spec)
		case *batchv1.Job:
			checkPod(t, o.Name, o.Spec.Template.Spec, false)
		case *batchv1.CronJob:
			checkPod(t, o.Name, o.Spec.JobTemplate.Spec.Template.Spec, false)
			if o.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent {
				t.Errorf("%s may run beside itself", o.Name)
			}
		case *networkingv1.NetworkPolicy:
			// What no other policy lets through is denied, both ways.
			denies = denies || len(o.Spec.PodSelector.MatchLabels) <= 1 && len(o.Spec.PolicyTypes) == 2 && len(o.Spec.Ingress) == 0 && len(o.Spec.Egress) == 0
		case *corev1.ConfigMap:
			for _, network := range strings.Split(o.Data["TRUSTED_PROXIES"], ",") {
				if p, err := netip.ParsePrefix(network); err == nil && p.Bits() < 24 {
					t.Errorf("TRUSTED_PROXIES=%s: whoever has an address there says which address a client has", network)
				}
			}
		}
	}
	for kind, least := range map[string]int{"Deployment": 4, "Job": 1, "CronJob": 1, "Service": 1, "PodDisruptionBudget": 4, "HorizontalPodAutoscaler": 1, "ConfigMap": 1, "NetworkPolicy": 4} {
		if kinds[kind] < least {
			t.Errorf("%d of kind %s, want %d", kinds[kind], kind, least)
		}
	}
	if !denies {
		t.Error("nothing denies what the network policies do not allow")
	}
	if kinds["Secret"] > 0 {
		t.Error("secrets are among the manifests")
	}
}

// checkPodLedger wants the ledger of erasures in the claim that all share, and that the API alone can write to.
func checkPodLedger(t *testing.T, name string, pod corev1.PodSpec) {
	t.Helper()
	if pod.SecurityContext == nil || pod.SecurityContext.FSGroup == nil {
		t.Errorf("%s: a new volume belongs to root, and no fsGroup changes that", name)
	}
	if len(pod.Volumes) != 1 || pod.Volumes[0].PersistentVolumeClaim == nil || pod.Volumes[0].PersistentVolumeClaim.ClaimName != "usher-ledger" {
		t.Errorf("%s has the volumes %+v, want the ledger", name, pod.Volumes)
	}
	for _, c := range pod.Containers {
		if !works(c.Args) {
			t.Errorf("%s: %v is no process of usher that is known here", name, c.Args)
		}
		if !slices.Contains(c.Env, corev1.EnvVar{Name: "ERASURE_LEDGER", Value: ledger}) {
			t.Errorf("%s does not know the ledger of erasures", name)
		}
		if m := c.VolumeMounts; len(m) != 1 || m[0].MountPath != filepath.Dir(ledger) || m[0].ReadOnly != (name != "usher-api") {
			t.Errorf("%s mounts %+v, want the ledger, written by the API alone", name, m)
		}
	}
}

// The units agree on one user and one place for the ledger, and on when and as what a purge runs.
func TestSystemd(t *testing.T) {
	t.Parallel()
	for file, lines := range map[string][]string{
		"usher@.service": {
			"ExecStart=/usr/local/bin/usher %i $USHER_ARGS", "Environment=ERASURE_LEDGER=/var/lib/usher/erasures.log", "DynamicUser=yes", "User=usher", "StateDirectory=usher",
		},
		"usher-migrate.service": {"Type=oneshot", "ExecStart=/usr/local/bin/usher migrate up"},
		"usher-purge.service":   {"Type=oneshot", "ExecStart=/usr/local/bin/usher purge --older-than 30d --yes", "DynamicUser=yes", "User=usher", "StateDirectory=usher"},
		"usher-check.service":   {"Type=oneshot", "ExecStart=/usr/local/bin/usher check", "DynamicUser=yes"},
		"usher-purge.timer":     {"OnCalendar=*-*-* 03:17:00", "Persistent=yes", "WantedBy=timers.target"},
	} {
		raw, err := os.ReadFile(filepath.Join(root, "deploy", "systemd", file))
		if err != nil {
			t.Error(err)
			continue
		}
		has := strings.Split(string(raw), "\n")
		for _, line := range lines {
			if !slices.Contains(has, line) {
				t.Errorf("%s lacks %q", file, line)
			}
		}
		if strings.HasSuffix(file, ".service") && !slices.Contains(has, "Environment=LOG_FORMAT=json") {
			t.Errorf("%s logs in another form than compose.yaml and Kubernetes do", file)
		}
		// Environment= comes first, so that the files can say otherwise.
		from := slices.Index(has, "EnvironmentFile=/etc/usher/usher.env")
		for at, line := range has {
			if strings.HasPrefix(line, "Environment=") && at > from {
				t.Errorf("%s: no file can say otherwise than %s", file, line)
			}
		}
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
