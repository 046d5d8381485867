package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTime bounds a probe.
const healthTime = 3 * time.Second

func healthCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the process on this machine whether it is ready",
		Long: "Ask the process on this machine, at METRICS_ADDR, whether it is ready: for a container's health check, where there\n" +
			"is no shell. `usher check` looks at the whole deployment.",
		Example: "  usher health",
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := loadConfig()
		if err != nil {
			return err
		}
		said, err := probe(cmd.Context(), cmp.Or(config.MetricsAddr, defaultMetricsAddr))
		if err != nil {
			return err
		}
		return tell(cmd, map[string]bool{"ready": true}, text("%s", said))
	}
	return c
}

// probe asks the process that listens at an address, on this machine, whether it is ready.
func probe(ctx context.Context, addr string) (said string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("no process answers at METRICS_ADDR: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", errors.New(strings.TrimSpace(string(text)))
	}
	return strings.TrimSpace(string(text)), nil
}
