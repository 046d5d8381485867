package devstack

import (
	"fmt"
	"os/exec"
	"runtime"
	"sync"
)

// spawner hands commands to the one thread that starts them.
var spawner = sync.OnceValue(func() chan<- spawnRequest {
	requests := make(chan spawnRequest)
	go func() {
		// The kernel ties a child's parent-death signal to the thread that forked it, not to the process.
		// A thread of the Go scheduler may end at any time and would take the servers with it; this one
		// is locked to a goroutine that never returns.
		runtime.LockOSThread()
		for r := range requests {
			r.started <- r.cmd.Start()
		}
	}()
	return requests
})

type spawnRequest struct {
	cmd     *exec.Cmd
	started chan<- error
}

// Spawn starts cmd as cmd.Start does, in a process group of its own, so that an interrupt typed at the
// terminal does not reach it. On Linux the child is killed when this process ends in whatever way, unless
// cmd.SysProcAttr names another Pdeathsig.
func Spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = ownGroup(cmd.SysProcAttr)
	started := make(chan error)
	spawner() <- spawnRequest{cmd, started}
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return nil
}

// child is a started process whose end has been, or is being, waited for.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid once done is closed
}

func spawnChild(cmd *exec.Cmd) (*child, error) {
	if err := Spawn(cmd); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) exited() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// kill ends the process at once and waits for it.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // the only error is that it has ended already
	<-c.done
}
