package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The module can be given its home by one command: what it is made of finds itself there, and nothing has the old path any more.
func TestModuleMoves(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	moved := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = moved, append(readersEnv(), "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	copySources(t, moved, root)
	run("git", "init", "-q")
	run("git", "add", "-A")
	from, to := moduleOf(t, root), "git.example.org/us/usher"
	run("make", "module", "TO="+to)

	for _, p := range strings.Fields(run("go", "list", "-deps", "-test", "./...")) {
		if p == from || strings.HasPrefix(p, from+"/") {
			t.Errorf("%s is still imported", p)
		}
	}
	if left, err := exec.Command("git", "-C", moved, "grep", "-nE", `"`+from+`/|(module|replace|require) `+from).Output(); err == nil {
		t.Errorf("these have the old path:\n%s", left)
	}
	if !strings.Contains(run("go", "list", "-f", "{{.ImportPath}} {{.Name}}", "./cmd/usher"), to+"/cmd/usher main") {
		t.Errorf("there is no %s/cmd/usher", to)
	}
}

// copySources copies what is kept of a checkout: not what is made in it, nor its history.
func copySources(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch base := e.Name(); {
		case e.IsDir() && (base == ".git" || base == ".usher" || base == ".versions" || base == "node_modules" || name == "bin"):
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		case !e.Type().IsRegular() || base == ".git": // the latter is that of a worktree
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}
