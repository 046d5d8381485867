package test

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// workload is as much of a Deployment, a Job or a CronJob as a process is made of.
type workload struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Template    podTemplate
		JobTemplate struct {
			Spec struct{ Template podTemplate }
		} `yaml:"jobTemplate"`
	}
	StringData         map[string]string `yaml:"stringData"`
	Resources          []string
	ConfigMapGenerator []struct {
		Name     string
		Literals []string
	} `yaml:"configMapGenerator"`
}

type podTemplate struct {
	Spec struct {
		Containers []struct {
			Args  []string
			Ports []struct {
				Name          string
				ContainerPort string `yaml:"containerPort"`
			}
			StartupProbe   *podProbe `yaml:"startupProbe"`
			LivenessProbe  *podProbe `yaml:"livenessProbe"`
			ReadinessProbe *podProbe `yaml:"readinessProbe"`
			EnvFrom        []struct {
				ConfigMapRef struct{ Name string } `yaml:"configMapRef"`
			} `yaml:"envFrom"`
			Env []struct {
				Name, Value string
				ValueFrom   struct {
					SecretKeyRef struct {
						Name, Key string
						Optional  bool
					} `yaml:"secretKeyRef"`
				} `yaml:"valueFrom"`
			}
		}
	}
}

type podProbe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// documents reads the documents of a file.
func documents(t *testing.T, raw []byte) (list []workload) {
	t.Helper()
	for d := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var w workload
		err := d.Decode(&w)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, w)
	}
}

// The workloads of deploy/kubernetes, run as processes with their commands and with the environments that ConfigMap and Secret give
// them, come up, and the check is content.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	folder := filepath.Join("..", "deploy", "kubernetes")
	read := func(name string) []workload {
		raw, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return documents(t, raw)
	}
	s := newInstallation(t, "kubernetes")
	s.servers("usher", s.values["POSTGRES_PASSWORD"], s.natsEnv(), natsFlags...)
	secret := documents(t, []byte(s.secretsSh("--kubernetes")))[0].StringData
	for _, key := range sorted(read("secret.example.yaml")[0].StringData) {
		if _, is := secret[key]; !is {
			t.Errorf("secrets.sh makes no %s, which secret.example.yaml has", key)
		}
	}
	s.write(`ADMIN_PASSWORD="it's \"quoted\", and a \\ too"`, "SMTP_URL='smtps://me:a\"b@mail'", "SMTP_TLS=optional")
	quoted := documents(t, []byte(s.secretsSh("--kubernetes")))[0].StringData
	if got, want := quoted["ADMIN_PASSWORD"]+" "+quoted["SMTP_URL"]+" "+quoted["SMTP_TLS"], `it's "quoted", and a \ too smtps://me:a"b@mail optional`; got != want {
		t.Errorf("the Secret has %s, want %s", got, want)
	}

	kustomization := read("kustomization.yaml")[0]
	settings := map[string]string{}
	for _, literal := range kustomization.ConfigMapGenerator[0].Literals {
		name, value, _ := strings.Cut(literal, "=")
		settings[name] = value
	}
	workloads := map[string]workload{}
	for _, file := range kustomization.Resources {
		for _, w := range read(file) {
			if w.Kind == "Deployment" || w.Kind == "Job" || w.Kind == "CronJob" {
				workloads[w.Metadata.Name] = w
			}
		}
	}
	// process is what a workload runs, and the paths of its probes, by the port that each asks.
	process := func(name string) (env map[string]string, args []string, probes map[string][]string) {
		w := workloads[name]
		pod := w.Spec.Template
		if w.Kind == "CronJob" {
			pod = w.Spec.JobTemplate.Spec.Template
		}
		if len(pod.Spec.Containers) != 1 {
			t.Fatalf("%s has %d containers", name, len(pod.Spec.Containers))
		}
		c := pod.Spec.Containers[0]
		env = map[string]string{}
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef.Name == "usher" {
				for k, v := range settings {
					env[k] = v
				}
			}
		}
		for _, e := range c.Env {
			if ref := e.ValueFrom.SecretKeyRef; ref.Key == "" {
				env[e.Name] = e.Value
			} else if value, is := secret[ref.Key]; is {
				env[e.Name] = value
			} else if !ref.Optional {
				t.Errorf("%s needs %s of the secret, which has none", name, ref.Key)
			}
		}
		ports := map[string]string{}
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
		probes = map[string][]string{}
		for _, p := range []*podProbe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if p != nil {
				port := cmp.Or(ports[p.HTTPGet.Port], p.HTTPGet.Port)
				probes[port] = append(probes[port], p.HTTPGet.Path)
			}
		}
		return env, c.Args, probes
	}

	s.rolesByHand()
	run := func(name string) {
		env, args, _ := process(name)
		s.as(env)
		s.command(args...)
	}
	run("usher-migrate")
	s.rolesByHand()
	for _, name := range sorted(workloads) {
		if workloads[name].Kind == "Deployment" {
			env, args, probes := process(name)
			p := s.serve(env, args...)
			http, metrics := p.listening(t)
			at := map[string]string{portOf(env["METRICS_ADDR"]): metrics}
			if args[0] == "serve" {
				at[portOf(s.inForce(env, "HTTP_ADDR"))] = http
			}
			if len(probes) == 0 {
				t.Errorf("%s has no probe", name)
			}
			for _, port := range sorted(probes) {
				if at[port] == "" {
					t.Errorf("a probe of %s asks port %s, and it listens at those of %v", name, port, sorted(at))
					continue
				}
				for _, path := range probes[port] {
					s.asked(name, at[port], &url.URL{Host: ":" + port, Path: path})
				}
			}
		}
	}
	run("usher-purge")
	env, args, _ := process("usher-operator")
	s.works(env, args...)
}
