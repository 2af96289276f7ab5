// Kafka's own Java clients and this adapter: each reads what the other wrote, with every compression.
import { execFile } from "node:child_process"
import { rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Kafka, logLevel } from "kafkajs"
import { jars, java } from "../../../stack/jars.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { fresh, range, readAll, record } from "../../contract/log-support.ts"
import { brokers, nodeWithLog } from "../../support/kafka.ts"
import { owning } from "../../support/stack.ts"

const codecs = ["none", "gzip", "snappy", "lz4", "zstd"] as const
const program = `
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
public class Foreign {
  public static void main(String[] args) throws Exception {
    Properties p = new Properties();
    p.put("bootstrap.servers", args[0]);
    p.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
    p.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
    p.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
    p.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
    p.put("isolation.level", "read_committed");
    p.put("linger.ms", "50");
    p.put("batch.size", "200000");
    for (String codec : "none gzip snappy lz4 zstd".split(" ")) {
      p.put("compression.type", codec);
      try (var producer = new KafkaProducer<String, String>(p)) {
        for (int i = 0; i < 2000; i++) {
          var record = new ProducerRecord<>(args[1], 0, 1000000L + i, "k" + i, "{\\"codec\\":\\"" + codec + "\\",\\"n\\":" + i + "}");
          record.headers().add("event_id", (codec + i).getBytes());
          producer.send(record);
        }
      }
    }
    try (var consumer = new KafkaConsumer<String, String>(p)) {
      var partition = new TopicPartition(args[2], 0);
      consumer.assign(List.of(partition));
      consumer.seekToBeginning(List.of(partition));
      int left = Integer.parseInt(args[3]);
      var out = new StringBuilder();
      while (left > 0) for (var r : consumer.poll(Duration.ofSeconds(10))) {
        var id = r.headers().lastHeader("event_id");
        out.append(r.offset()).append(' ').append(r.key()).append(' ').append(r.value()).append(' ').append(new String(id.value())).append('\\n');
        left--;
      }
      System.out.print(out);
    }
  }
}
`
const suite = await owning("kafka")
suite("beside Java", () => {
  vitest.layer(nodeWithLog(), { timeout: "90 seconds", excludeTestServices: true })("Kafka's Java clients", (it) => {
    it.effect("Java clients write what is read here, and read what is written here, with every codec", () =>
      Effect.gen(function* () {
        const list = yield* brokers
        const [theirs, ours] = [yield* fresh(), yield* fresh()]
        const written: Array<string> = []
        for (const compression of codecs) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const own = yield* KafkaLog.make({ brokers: list, compression })
              const records = range(0, 2_000).map((i) => {
                const value = `{"codec":"${compression}","text":"${"żółw ".repeat(i % 30)}${i}"}`
                written.push(`${written.length} k${i} ${value} id${i}`)
                return record({ key: `k${i}`, value, eventId: `id${i}` })
              })
              yield* own.append(ours, records)
            })
          )
        }
        const source = join(tmpdir(), `Foreign-${process.pid}.java`)
        writeFileSync(source, program)
        yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(source)))
        const classpath = join(yield* Effect.promise(() => jars("kafka")), "*")
        const args = ["-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", classpath, source]
        const { stdout } = yield* Effect.promise(() =>
          promisify(execFile)(java(), [...args, list.join(), theirs, ours, String(written.length)], {
            maxBuffer: 1 << 26
          })
        )
        assert.deepStrictEqual(stdout.trimEnd().split("\n"), written)
        const { records } = yield* readAll(theirs)
        assert.deepStrictEqual(
          records.map(({ eventId, key, value }) => `${key} ${value} ${eventId}`),
          codecs.flatMap((codec) => range(0, 2_000).map((i) => `k${i} {"codec":"${codec}","n":${i}} ${codec}${i}`))
        )
        // they write no header for the event time, and the topic's record time is the broker's
        assert.isTrue(records.every(({ appendedAt, eventTime }) => appendedAt > 1e12 && eventTime === appendedAt))
      })
    )

    it.effect("kafkajs writes and reads every codec too, once a log was opened", () =>
      Effect.gen(function* () {
        const topic = yield* fresh()
        const kafka = new Kafka({ brokers: [...(yield* brokers)], logLevel: logLevel.NOTHING })
        const producer = kafka.producer()
        yield* Effect.promise(async () => {
          await producer.connect()
          for (const compression of range(0, 5)) {
            const messages = range(0, 300).map((i) => ({ partition: 0, value: `[${compression},${i}]` }))
            await producer.send({ topic, compression, messages })
          }
          await producer.disconnect()
        })
        const expected = range(0, 5).flatMap((codec) => range(0, 300).map((i) => `[${codec},${i}]`))
        assert.deepStrictEqual(
          (yield* readAll(topic)).records.map(({ value }) => value),
          expected
        )
        const consumer = kafka.consumer({ groupId: topic })
        const seen = yield* Effect.promise(async () => {
          const values: Array<string> = []
          await consumer.connect()
          await consumer.subscribe({ topic, fromBeginning: true })
          await consumer.run({ eachMessage: async ({ message }) => void values.push(String(message.value)) })
          while (values.length < expected.length) await new Promise((resolve) => setTimeout(resolve, 20))
          await consumer.disconnect()
          return values
        })
        assert.deepStrictEqual(seen, expected)
      })
    )
  })
})
