package sqlite

import (
	"database/sql/driver"
	"fmt"
	"hash/fnv"

	modernc "modernc.org/sqlite"
)

// Every connection has the function row_hash(…), a hash of its arguments (64 bits, signed): what hashtextextended is to
// Postgres, which SQLite lacks.
func init() {
	modernc.MustRegisterDeterministicScalarFunction("row_hash", -1,
		func(_ *modernc.FunctionContext, args []driver.Value) (driver.Value, error) {
			h := fnv.New64a()
			for _, a := range args {
				if raw, ok := a.([]byte); ok {
					a = string(raw)
				}
				fmt.Fprintf(h, "%T %[1]v\x00", a) // a hash takes everything
			}
			return int64(h.Sum64()), nil
		})
}
