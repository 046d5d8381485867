//go:build !linux

package devstack

import "syscall"

func ownGroup(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }

func postgresAttr(string) (*syscall.SysProcAttr, error) { return nil, nil }

func children(int) []int { return nil }

func removeSharedMemory(int) error { return nil }
