package fetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// one is a record as the tests write it.
type one struct {
	delta   int64
	ts      int64
	key     []byte
	value   []byte
	headers []Header
}

// made is a batch as the tests write it: every field is theirs to choose.
type made struct {
	base      int64
	last      int32 // offset delta; −1: of the last record
	attrs     uint16
	firstTS   int64
	maxTS     int64
	producer  int64
	count     int32 // −1: of the records
	records   []one
	body      []byte // instead of records
	magic     byte
	wrongSum  bool
	extraSize int32
}

func (m made) bytes() []byte {
	body := m.body
	if body == nil {
		for _, r := range m.records {
			body = appendRecord(body, r)
		}
	}
	last, count := m.last, m.count
	if last < 0 {
		last = int32(m.records[len(m.records)-1].delta)
	}
	if count < 0 {
		count = int32(len(m.records))
	}
	b := make([]byte, headerLen)
	binary.BigEndian.PutUint64(b, uint64(m.base))
	b[offMagic] = m.magic
	binary.BigEndian.PutUint16(b[offAttrs:], m.attrs)
	binary.BigEndian.PutUint32(b[offLast:], uint32(last))
	binary.BigEndian.PutUint64(b[offFirstTS:], uint64(m.firstTS))
	binary.BigEndian.PutUint64(b[offMaxTS:], uint64(m.maxTS))
	binary.BigEndian.PutUint64(b[offProducer:], uint64(m.producer))
	binary.BigEndian.PutUint32(b[offCount:], uint32(count))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[offLength:], uint32(int32(len(b)-lengthFrom)+m.extraSize))
	sum := crc32.Checksum(b[crcFrom:], castagnoli)
	if m.wrongSum {
		sum++
	}
	binary.BigEndian.PutUint32(b[offCRC:], sum)
	return b
}

func appendRecord(dst []byte, r one) []byte {
	b := []byte{0}
	b = binary.AppendVarint(b, r.ts)
	b = binary.AppendVarint(b, r.delta)
	b = appendField(b, r.key)
	b = appendField(b, r.value)
	b = binary.AppendVarint(b, int64(len(r.headers)))
	for _, h := range r.headers {
		b = appendField(b, []byte(h.Key))
		b = appendField(b, h.Value)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

func appendField(dst, f []byte) []byte {
	if f == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(f))), f...)
}

func batchOf(base int64, values ...string) made {
	m := made{base: base, last: -1, count: -1, magic: 2, producer: -1}
	for i, v := range values {
		m.records = append(m.records, one{delta: int64(i), value: []byte(v)})
	}
	return m
}

func control2(base, producer int64, kind byte) made {
	m := batchOf(base, "")
	m.attrs, m.producer = control|transactional, producer
	m.records[0].key = []byte{0, 0, 0, kind}
	return m
}

func answer(raw []byte, aborted ...Aborted) *Answer {
	return &Answer{set: &recordSet{raw: raw}, aborted: aborted}
}

// read returns copies of all records of an answer.
func read(a *Answer, from int64) (records []Record, next int64, err error) {
	var r Reader
	r.Reset(a, from)
	var rec Record
	for {
		more, err := r.Next(&rec)
		if err != nil || !more {
			return records, r.Offset(), err
		}
		records = append(records, clone(rec))
	}
}

func clone(r Record) Record {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	var headers []Header
	for _, h := range r.Headers {
		headers = append(headers, Header{Key: string([]byte(h.Key)), Value: bytes.Clone(h.Value)})
	}
	r.Headers = headers
	return r
}

// encodeKafkaGo writes records as kafka-go does.
func encodeKafkaGo(t interface{ Fatal(...any) }, codec kafka.Compression, base int64, records []Record) []byte {
	out := make([]protocol.Record, len(records))
	for i, r := range records {
		out[i] = protocol.Record{Offset: r.Offset - base, Time: time.UnixMilli(r.Time)}
		if r.Key != nil {
			out[i].Key = protocol.NewBytes(r.Key)
		}
		if r.Value != nil {
			out[i].Value = protocol.NewBytes(r.Value)
		}
		for _, h := range r.Headers {
			out[i].Headers = append(out[i].Headers, protocol.Header{Key: h.Key, Value: h.Value})
		}
	}
	set := protocol.RecordSet{Version: 2, Attributes: protocol.Attributes(codec), Records: protocol.NewRecordReader(out...)}
	var b bytes.Buffer
	if _, err := set.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()[4:] // without the size
	binary.BigEndian.PutUint64(raw, uint64(base))
	return raw
}

// decodeKafkaGo reads records as kafka-go does.
func decodeKafkaGo(raw []byte) ([]Record, error) {
	var set protocol.RecordSet
	sized := append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...)
	if _, err := set.ReadFrom(bytes.NewReader(sized)); err != nil {
		return nil, err
	}
	var records []Record
	for set.Records != nil {
		r, err := set.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return records, err
		}
		rec := Record{Offset: r.Offset, Time: r.Time.UnixMilli()}
		if r.Key != nil {
			if rec.Key, err = protocol.ReadAll(r.Key); err != nil {
				return records, err
			}
			if rec.Key == nil {
				rec.Key = []byte{}
			}
		}
		if r.Value != nil {
			if rec.Value, err = protocol.ReadAll(r.Value); err != nil {
				return records, err
			}
			if rec.Value == nil {
				rec.Value = []byte{}
			}
		}
		for _, h := range r.Headers {
			rec.Headers = append(rec.Headers, Header{h.Key, h.Value})
		}
		records = append(records, rec)
	}
	return records, nil
}
