package peer;

import java.nio.file.Path;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.producer.KafkaProducer;

public final class Main {
    private static Set<String> with(String... more) {
        Set<String> s = new TreeSet<>(Workload.FLAGS);
        s.addAll(Set.of("bootstrap", "pg"));
        s.addAll(Set.of(more));
        return s;
    }

    public static void main(String[] args) throws Exception {
        String what = args.length == 0 ? "" : args[0];
        switch (what) {
            case "app" -> App.run(new Flags(args, 1, App.FLAGS));
            case "topology" -> {
                Flags f = new Flags(args, 1, App.FLAGS);
                System.out.println(App.topology(f, App.config(f)).describe());
            }
            case "reset" -> Stack.reset(new Flags(args, 1, with("bare")));
            case "generate" -> {
                Flags f = new Flags(args, 1, with("rate", "ndjson", "input-compression", "no-reset", "no-features"));
                Workload w = new Workload(f);
                long t = System.nanoTime();
                if (f.has("ndjson")) {
                    Generator.files(w, Path.of(f.text("ndjson", "")));
                } else {
                    if (!f.has("no-reset")) Stack.reset(f);
                    if (f.real("rate", 0) == 0 && !f.has("no-reset") && !f.has("no-features")) {
                        Generator.fill(f, w);
                    } else {
                        try (KafkaProducer<byte[], byte[]> p = Generator.producer(f, f.real("rate", 0) > 0)) {
                            if (!f.has("no-features")) Generator.features(w, p);
                            Generator.events(w, p, 1, w.events, f.real("rate", 0), null);
                        }
                    }
                }
                Measure.print("events", w.events);
                Measure.print("seconds", (System.nanoTime() - t) / 1e9);
            }
            case "model" -> {
                Flags f = new Flags(args, 1, with("out"));
                Workload w = new Workload(f);
                Model m = new Model(w, true);
                if (f.has("out")) m.write(w, Path.of(f.text("out", "")));
                Measure.print("events", w.events);
                Measure.print("behind_stream_time", m.backdated);
                Measure.print("alerts", m.alerts);
                for (int k = 0; k < 3; k++) {
                    Measure.print("windows_" + Workload.WINDOW_NAMES[k], m.rows[k] + " rows, " + m.accepted[k] + " events, " + m.dropped[k] + " dropped late");
                }
                Measure.print("events_per_partition", java.util.Arrays.toString(m.eventsPerPartition));
            }
            case "throughput" -> {
                Flags f = new Flags(args, 1, with("app", "log", "prepared", "settle-ms", "timeout-s", "sql-only", "input-compression"));
                Measure.throughput(f, new Workload(f), f.text("app", null), f.text("log", null));
            }
            case "latency" -> {
                Flags f = new Flags(args, 1, with("app", "log", "prepared", "rate", "warmup-s", "measure-s", "poll-ms", "timeout-s", "input-compression", "alerts"));
                Measure.latency(f, f.text("app", null), f.text("log", null));
            }
            case "recovery" -> {
                Flags f = new Flags(args, 1, with("app", "log", "prepared", "rate", "warmup-s", "timeout-s", "poll-ms"));
                Recovery.run(f, f.text("app", null), f.text("log", null));
            }
            case "dump" -> {
                Flags f = new Flags(args, 1, with("out", "exact"));
                Measure.dump(f, Path.of(f.text("out", "out")));
            }
            case "verify" -> {
                Flags f = new Flags(args, 1, with("out", "sql-only"));
                Verify.run(f, new Workload(f), Path.of(f.text("out", "out")));
                System.exit(Verify.wrong == 0 ? 0 : 1);
            }
            default -> {
                System.err.println("app | topology | reset | generate | model | throughput | latency | recovery | dump | verify");
                System.exit(2);
            }
        }
    }

    private Main() {}
}
