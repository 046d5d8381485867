package postgres

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"usher.example/eventstore"
)

// column is a parameter of append_events: an array in the binary format of Postgres (array_recv in its source), to which
// elements are added as they come. pgx would have it as a slice first, and look for a way to encode that each time.
type column struct {
	raw   []byte // the elements, each after its length, behind room for the header
	n     int
	nulls int
}

// arrayHeader is the size of the number of dimensions, a flag for nulls, the type, the length and the lower bound.
const arrayHeader = 5 * 4

// element adds an element of some bytes, which are to be appended; -1 for null.
func (c *column) element(size int) {
	if c.raw == nil {
		c.raw = make([]byte, arrayHeader, 64)
	}
	c.n++
	c.raw = binary.BigEndian.AppendUint32(c.raw, uint32(int32(size)))
}

func (c *column) null() {
	c.element(-1)
	c.nulls++
}

// id adds an id; the nil UUID is null.
func (c *column) id(id uuid.UUID) {
	if id == uuid.Nil {
		c.null()
		return
	}
	c.element(len(id))
	c.raw = append(c.raw, id[:]...)
}

func (c *column) number(n int) {
	c.element(4)
	c.raw = binary.BigEndian.AppendUint32(c.raw, uint32(int32(n)))
}

func (c *column) small(n int) {
	c.element(2)
	c.raw = binary.BigEndian.AppendUint16(c.raw, uint16(int16(n)))
}

// flag adds true, or null in the place of false.
func (c *column) flag(is bool) {
	if !is {
		c.null()
		return
	}
	c.element(1)
	c.raw = append(c.raw, 1)
}

func (c *column) text(text string) {
	c.element(len(text))
	c.raw = append(c.raw, text...)
}

// bytes adds bytes; nil is null.
func (c *column) bytes(b []byte) {
	if b == nil {
		c.null()
		return
	}
	c.element(len(b))
	c.raw = append(c.raw, b...)
}

// json adds JSON, in the only version of its binary format; nil is null.
func (c *column) json(raw []byte) {
	if raw == nil {
		c.null()
		return
	}
	c.element(1 + len(raw))
	c.raw = append(append(c.raw, 1), raw...)
}

// value is the parameter, for elements of a type. An array that has none but nulls is null itself.
func (c *column) value(oid uint32) []byte {
	if c.n == c.nulls {
		return nil
	}
	header := c.raw[:0:arrayHeader]
	for _, field := range []uint32{1, uint32(min(c.nulls, 1)), oid, uint32(c.n), 1} {
		header = binary.BigEndian.AppendUint32(header, field)
	}
	return c.raw
}

// int64s reads an array of bigint, without nulls.
func int64s(raw []byte) ([]int64, error) {
	const element = 4 + 8
	if len(raw) < arrayHeader || (len(raw)-arrayHeader)%element != 0 {
		return nil, errors.New("not an array of bigint")
	}
	list := make([]int64, 0, (len(raw)-arrayHeader)/element)
	for at := arrayHeader; at < len(raw); at += element {
		list = append(list, int64(binary.BigEndian.Uint64(raw[at+4:])))
	}
	return list, nil
}

// arguments lays a batch out as append_events takes it, after careful: an array a column, and the number of the append (from
// 1) with every row that belongs to one.
func arguments(batch []*eventstore.Prepared) [][]byte {
	var (
		streams, subjects, kinds, expected, events, last, metadata, keys, commands, erase column

		eAppend, eID, eType, eSchema, eData, ePersonal column

		hold, let reservationRows
		given     givenRows
		state     stateRows
	)
	for i, p := range batch {
		number := i + 1
		streams.id(p.Stream.ID)
		subjects.id(p.Stream.Subject)
		kinds.text(string(p.Stream.Kind))
		expected.number(int(p.Expected))
		for k, e := range p.Events {
			eAppend.number(number)
			eID.id(e.ID)
			eType.text(e.Type)
			eSchema.small(e.SchemaVersion)
			eData.json(e.Data)
			ePersonal.bytes(p.Sealed[k])
		}
		events.number(len(p.Events))
		last.number(eAppend.n)
		metadata.json(p.Meta)
		keys.bytes(p.Key)
		commands.id(p.CommandID)
		erase.flag(p.Erase)
		hold.add(number, p.Reserve, p.ReserveKeys)
		let.add(number, p.Release, p.ReleaseKeys)
		given.add(number, p)
		for _, c := range p.State {
			state.add(number, c)
		}
	}
	return slices.Concat([][]byte{
		streams.value(pgtype.UUIDOID), subjects.value(pgtype.UUIDOID), kinds.value(pgtype.TextOID), expected.value(pgtype.Int4OID),
		events.value(pgtype.Int4OID), last.value(pgtype.Int4OID), metadata.value(pgtype.JSONBOID), keys.value(pgtype.ByteaOID),
		commands.value(pgtype.UUIDOID), erase.value(pgtype.BoolOID),
		eAppend.value(pgtype.Int4OID), eID.value(pgtype.UUIDOID), eType.value(pgtype.TextOID), eSchema.value(pgtype.Int2OID),
		eData.value(pgtype.JSONBOID), ePersonal.value(pgtype.ByteaOID),
	}, hold.values(), let.values(), given.values(), state.values())
}

// reservationRows are the columns of values to hold or to let go.
type reservationRows struct{ number, scope, key column }

func (r *reservationRows) add(number int, rs []eventstore.Reservation, keys [][]byte) {
	for i := range rs {
		r.number.number(number)
		r.scope.text(rs[i].Scope)
		r.key.bytes(keys[i])
	}
}

func (r *reservationRows) values() [][]byte {
	return [][]byte{r.number.value(pgtype.Int4OID), r.scope.value(pgtype.TextOID), r.key.value(pgtype.ByteaOID)}
}

// givenRows are the columns of streams that appends are given. One to a stream that is about a user is given the user's as well,
// behind the others: at whatever version, as long as the user is not erased.
type givenRows struct{ number, stream, version column }

func (g *givenRows) add(number int, p *eventstore.Prepared) {
	for _, v := range p.Given {
		g.number.number(number)
		g.stream.id(v.Stream)
		g.version.number(v.Version)
	}
	user := p.Stream.Subject
	named := slices.ContainsFunc(p.Given, func(v eventstore.StreamVersion) bool { return v.Stream == user })
	if user != uuid.Nil && user != p.Stream.ID && !named {
		g.number.number(number)
		g.stream.id(user)
		g.version.null()
	}
}

func (g *givenRows) values() [][]byte {
	return [][]byte{g.number.value(pgtype.Int4OID), g.stream.value(pgtype.UUIDOID), g.version.value(pgtype.Int4OID)}
}

// stateRows are the state changes of a batch: a row a table, and for each of the three kinds of changes its rows.
type stateRows struct {
	tables              []string
	fresh, put, removed jsonArrays
}

func (s *stateRows) add(number int, c eventstore.StateChange) {
	i := slices.Index(s.tables, c.Table)
	if i < 0 {
		i = len(s.tables)
		s.tables = append(s.tables, c.Table)
		s.fresh, s.put, s.removed = append(s.fresh, nil), append(s.put, nil), append(s.removed, nil)
	}
	switch {
	case c.Delete:
		s.removed.add(i, number, c.Row)
	case c.New:
		s.fresh.add(i, number, c.Row)
	default:
		s.put.add(i, number, c.Row)
	}
}

func (s *stateRows) values() [][]byte {
	var tables column
	for _, name := range s.tables {
		tables.text(name)
	}
	return [][]byte{tables.value(pgtype.TextOID), s.fresh.value(), s.put.value(), s.removed.value()}
}

// jsonArrays are JSON arrays of rows, each nil or lacking its last bracket.
type jsonArrays [][]byte

func (a jsonArrays) add(i, number int, row []byte) {
	mark := byte(',')
	if a[i] == nil {
		mark = '['
	}
	a[i] = append(append(a[i], mark), `{"append":`...)
	a[i] = append(strconv.AppendInt(a[i], int64(number), 10), ',')
	a[i] = append(a[i], row[1:]...) // a row has at least its primary key
}

// value closes the arrays.
func (a jsonArrays) value() []byte {
	var c column
	for _, rows := range a {
		if rows != nil {
			rows = append(rows, ']')
		}
		c.json(rows)
	}
	return c.value(pgtype.JSONBOID)
}
