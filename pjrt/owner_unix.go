//go:build unix

package pjrt

import (
	"fmt"
	"os"
	"syscall"
)

// onlyOurs reports an error unless dir is a folder that this user owns and that nobody else may write to.
func onlyOurs(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user; remove it, or set XDG_CACHE_HOME to a folder of your own", dir)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s has mode %#o: others could put programs there; run `chmod 700 %s`", dir, mode, dir)
	}
	return nil
}
