package embedded

import (
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/proto"
)

// helloQuery is the first statement of every connection of clickhouse-go, which
// reads its answer at the revision it asked for, and all later ones at the
// revision this answer names.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

func isHello(text string, q *request) bool {
	return q.nativeVersion != "" && strings.TrimSpace(text) == helloQuery
}

// runHello answers with revision 0, the one the engine writes Native at.
func runHello(c *conn, a *answer) (summary, error) {
	r, err := c.query("SELECT displayName(), version(), timezone()", "TabSeparatedRaw", nil)
	if err != nil {
		return summary{}, err
	}
	defer r.free()
	values := strings.Split(strings.TrimSuffix(string(r.bytes()), "\n"), "\t")
	if len(values) != 3 {
		return summary{}, makeException(codeUnknown, "UNKNOWN_EXCEPTION", "The engine does not say who it is")
	}
	asked, err := strconv.Atoi(a.request.nativeVersion)
	if err != nil || asked < 0 {
		return summary{}, makeException(codeBadArguments, "BAD_ARGUMENTS", "client_protocol_version is not a number")
	}
	text := func(s string) *proto.ColStr {
		col := new(proto.ColStr)
		col.Append(s)
		return col
	}
	var buf proto.Buffer
	block := proto.Block{Info: proto.BlockInfo{BucketNum: -1}, Columns: 4, Rows: 1}
	columns := []proto.InputColumn{
		{Name: "displayName()", Data: text(values[0])},
		{Name: "version()", Data: text(values[1])},
		{Name: "revision()", Data: &proto.ColUInt32{0}},
		{Name: "timezone()", Data: text(values[2])},
	}
	if err := block.EncodeBlock(&buf, asked, columns); err != nil {
		return summary{}, makeException(codeUnknown, "UNKNOWN_EXCEPTION", err.Error())
	}
	a.format = "Native"
	_, err = a.Write(buf.Buf)
	return summary{readRows: 1}, err
}
