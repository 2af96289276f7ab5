// The test files and folders that run on Node alone, each with the reason why Deno cannot change their outcome.
//
// Everything else runs on both runtimes: whatever opens sockets or streams, starts processes, handles signals, compresses, encrypts, serves
// HTTP or loads the native client. Each adapter keeps its contract suite, its suites of faults and one suite of the whole on Deno.

/** Paths in `test/`, and why their outcome does not depend on the runtime. */
export const onNodeOnly: Readonly<Record<string, string>> = {
  "generated-client": "the client is generated and compiled by npm programs",
  "layering.test.ts": "reads the imports of the source",
  "reference.test.ts": "compares pages with the text of the source",
  "types/docstrings.test.ts": "asks the TypeScript compiler; the examples import the same names on both runtimes",
  "types/mistakes.test.ts": "runs the TypeScript compiler; `deno task check` checks the same file",
  "fault/aggregates": "the harness's processes run on Node; the contract of the event store runs on Deno",
  "fault/dedupe.test.ts": "the engine's logic on PostgreSQL; flights.test.ts runs the same engine on Deno",
  "fault/poison.test.ts": "the engine's logic on PostgreSQL",
  "fault/shared-rows.test.ts": "locks of PostgreSQL",
  "integration/bridge/dlq-bridge.test.ts":
    "dead letters of brokers' answers; dlq.test.ts runs the same commands on Deno",
  "integration/bridge/fault.test.ts":
    "faults in processes at named points; outage.test.ts kills both brokers under a bridge on Deno",
  "integration/bridge/refusals.test.ts": "what brokers refuse",
  "integration/cli/rebuild.test.ts":
    "the engine's logic on PostgreSQL; drain.test.ts has processes and signals on Deno",
  "integration/cli/rebuild-until.test.ts":
    "the engine's logic on PostgreSQL; drain.test.ts has processes and signals on Deno",
  "integration/cli/rebuild-keys.test.ts":
    "the engine's logic on PostgreSQL; drain.test.ts has processes and signals on Deno",
  "integration/cli/changing-projections.test.ts":
    "the engine's logic on PostgreSQL; drain.test.ts has processes and signals on Deno",
  "integration/cli/aggregate-command.test.ts":
    "the engine's logic on PostgreSQL; drain.test.ts has processes and signals on Deno, server/aggregates.test.ts the same commands over HTTP",
  "integration/cli/changing-application.test.ts":
    "what npx and a shell print; drain.test.ts has processes and signals on Deno",
  "integration/cli/first-application.test.ts":
    "what npx and a shell print; ingest.test.ts runs the same commands on Deno",
  "integration/cli/rebuilt-policy.test.ts":
    "the engine's logic on PostgreSQL; drain.test.ts has processes and signals on Deno",
  "integration/cli/topics.test.ts": "what a broker makes of topics; drain.test.ts runs commands on Kafka on Deno",
  "integration/console": "a browser's view of HTTP routes that run on Deno, too",
  "integration/dead-letter/dead-letters.test.ts": "the engine's logic on PostgreSQL",
  "integration/dead-letter/foreign-retry.test.ts": "the engine's logic on PostgreSQL",
  "integration/dead-letter/late-retry.test.ts": "the engine's logic on PostgreSQL",
  "integration/dead-letter/dlq-fanout.test.ts":
    "dead letters of brokers' answers; dlq.test.ts runs the same commands on Deno",
  "integration/kafka/halts.test.ts": "what a broker answers about topics that are gone",
  "integration/kafka/relay/positions.test.ts": "what a broker answers about offsets",
  "integration/kafka/rebuild-parts.test.ts": "the engine's logic; system.test.ts runs on Deno",
  "integration/kafka/replay.test.ts": "the engine's logic; system.test.ts runs on Deno",
  "integration/kafka/topics.test.ts": "what a broker makes of topics",
  "integration/postgres/client/migrate.test.ts": "statements of SQL",
  "integration/postgres/events": "statements of SQL; the contract of the event store runs on Deno",
  "integration/postgres/relay/relay.test.ts": "statements of SQL; its faults run on Deno",
  "integration/postgres/store": "statements of SQL; client.test.ts has the connection, which is the same for all",
  "integration/pulsar/relay/halts.test.ts": "what a broker remembers of producers; relay.test.ts runs on Deno",
  "integration/pulsar/relay/undeclared.test.ts": "what a broker answers about tenants that are not declared",
  "integration/pulsar/tenants.test.ts": "what a broker makes of tenants",
  "integration/runner/halted.test.ts": "errors of SQL, and what the engine does with them",
  "integration/runner/lookup-dead-letters.test.ts": "the engine's logic on PostgreSQL",
  "integration/runner/lookups.test.ts": "the engine's logic on PostgreSQL",
  "integration/runner/poison-application.test.ts": "the engine's logic on PostgreSQL",
  "integration/runner/projection.test.ts": "the engine's logic on PostgreSQL",
  "integration/runner/replay.test.ts": "the engine's logic on PostgreSQL",
  "integration/server/fuzz.test.ts":
    "bytes that are no HTTP, which Node's parser refuses; malformed.test.ts has malformed events, which the project refuses",
  "integration/server/resets.test.ts":
    "counts what Node's event loop and collector hold; untrusted.test.ts resets connections on Deno",
  "integration/stack": "the launcher of the services; every suite on Deno that needs one starts it there",
  "integration/system/promote.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/changed-sources.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/promote-killed.test.ts": "processes of a patched copy run on Node",
  "integration/system/rebuilt-chains.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/random-versions.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/rebuild.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/rebuild-until.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/rebuild-from.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/rebuild-keys.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/corrections.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/diff.test.ts": "statements of SQL; cli/diff-command.test.ts runs the command on Deno",
  "integration/system/reenrich.test.ts": "the engine's logic on PostgreSQL",
  "integration/system/status.test.ts": "statements of SQL; cli/roles.test.ts runs the processes on Deno",
  "unit/cli/stray-errors.test.ts": "how Node ends a process with an error that nothing catches"
}
