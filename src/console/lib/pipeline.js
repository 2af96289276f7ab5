// The parts of a system and what flows between them, from what the server says of the application and of its state. Pure.
import { endOf, oldest, recordsOf, sum } from "./counts.js"
import { counted, duration, number } from "./format.js"
import { linkTo } from "./router.js"

/** Counters whose rates are at the edges: how far each build is in each topic, what it has published, and the ends of topics. */
export const countersOf = (status, topics) => {
  const counters = {}
  const add = (name, value) => (counters[name] = (counters[name] ?? 0) + value)
  for (const { name, position, published, topic, version } of status.projections) {
    add(`reads ${name} ${version} ${topic}`, position)
    add(`publishes ${name}`, published)
  }
  for (const topic of topics) add(`topic ${topic.name}`, endOf(topic))
  return counters
}

/** What is wrong with some partitions, the worst first: `{ state, note, reason }`. */
const stateOf = (rows, paused) => {
  const halted = rows.filter((row) => row.halted !== null)
  if (halted.length > 0)
    return { state: "bad", note: `${counted(halted.length, "partition")} halted`, reason: halted[0].halted }
  if (paused !== undefined) return { state: "warn", note: `paused for ${duration(paused.paused_ms)}` }
  const waiting = rows.filter((row) => row.waiting !== null)
  if (waiting.length > 0) return { state: "warn", note: "fails and is tried again", reason: waiting[0].waiting }
  return { state: "", note: "" }
}
const waitingText = (lag, age, noun = "") =>
  lag === 0 ? "" : `${number(lag)}${noun && ` ${noun}`} waiting${age >= 1_000 ? `, ${duration(age)}` : ""}`
const rateText = (rate) => (rate === undefined || rate === 0 ? "" : `${number(rate)}/s`)
const labelOf = (...texts) => texts.filter(Boolean).join(" · ")

/** The kinds of topics as they are shown; all others are topics. */
const topicKinds = { aggregate: "aggregate", lookup: "lookup topic", derived: "derived topic" }
/** The nodes and edges of topics and aggregates. */
const topicParts = ({ application, topics }) => {
  const of = new Map(topics.map((topic) => [topic.name, topic]))
  const nodes = application.topics
    .filter(({ dead_letters: isDead }) => !isDead)
    .map(({ kind, name }) => {
      const { differs = false, partitions = [] } = of.get(name) ?? {}
      return {
        id: `topic ${name}`,
        kind: topicKinds[kind] ?? "topic",
        label: name,
        href: linkTo(kind === "aggregate" ? ["aggregates", name] : ["topics", name]),
        state: differs ? "warn" : "",
        note: differs
          ? "differs from its declaration"
          : kind === "derived"
            ? topicKinds.derived
            : counted(recordsOf({ partitions }), "record")
      }
    })
  return { nodes, edges: [] }
}
/** A build of a projection with the edges to what it reads. */
const buildParts = (declared, rows, { isLive, rates, role, status }) => {
  const [{ name, version }] = rows
  const paused = isLive ? status.paused.find(({ projection }) => projection === name) : undefined
  const found = stateOf(rows, paused)
  const lag = sum(rows.map((row) => row.lag ?? 0))
  const id = isLive ? `projection ${name}` : `projection ${name} build ${version}`
  const kind =
    declared?.sends_to.length > 0 ? "policy" : declared?.lifecycle === "inline" ? "inline projection" : "projection"
  const note = found.note || (isLive ? kind : `${role}: ${lag === 0 ? "up to date" : `${number(lag)} to go`}`)
  const node = {
    id,
    kind: isLive ? kind : `build ${version}, ${role}`,
    label: isLive ? name : `${name}, build ${version}`,
    href: linkTo(["versions", name]),
    note,
    state: found.state,
    reason: found.reason,
    command: paused && `npx millrace resume ${name}`,
    isFollower: !isLive
  }
  const edges = [...Map.groupBy(rows, ({ topic }) => topic)].map(([topic, some]) => {
    const waits = sum(some.map((row) => row.lag ?? 0))
    return {
      from: `topic ${topic}`,
      to: id,
      kind: isLive ? "reads" : "follows",
      label: rateText(rates[`reads ${name} ${version} ${topic}`]),
      waits: waitingText(waits, oldest(some.map(({ oldest_ms: ms }) => ms))),
      state: found.state
    }
  })
  return { nodes: [node], edges }
}
/** What a projection writes, looks up and commands. */
const outputParts = ({ looks_up: lookups, name, publishes, sends_to: sends, tables, windows }, kinds, rates) => {
  const id = `projection ${name}`
  const models = [...tables.map((one) => [one, "table"]), ...windows.map((one) => [one, "window"])]
  return {
    nodes: models.map(([one, kind]) => ({
      id: `table ${one}`,
      kind,
      label: one,
      href: linkTo([kind === "window" && kinds.has(one) ? "windows" : "tables", one]),
      note: kind,
      state: ""
    })),
    edges: [
      ...models.map(([one]) => ({ from: id, to: `table ${one}`, kind: "writes", label: "" })),
      ...publishes.map((one, i) => ({
        from: id,
        to: `topic ${one}`,
        kind: "publishes",
        label: i === 0 ? rateText(rates[`publishes ${name}`]) : ""
      })),
      ...lookups.map((one) => ({ from: `topic ${one}`, to: id, kind: "looks up", label: "" })),
      ...sends.map((one) => ({ from: id, to: `topic ${one}`, kind: "sends commands to", label: "" }))
    ]
  }
}
/** The rules of a bridge, between topics on Kafka and on Pulsar. */
const bridgeParts = ({ bridge_rules: given = [] }) => {
  const rules = given.map(({ from, name, to }) => ({
    id: `bridge ${name}`,
    kind: "bridge rule",
    label: name,
    href: linkTo("topics"),
    state: "",
    note: "by millrace bridge",
    from,
    to
  }))
  const sides = [...new Set(rules.flatMap(({ from, to }) => [from, to]))].filter((side) => side.startsWith("pulsar:"))
  const side = (text) => (text.startsWith("kafka:") ? `topic ${text.slice("kafka:".length)}` : `pulsar ${text}`)
  return {
    nodes: [
      ...rules,
      ...sides.map((text) => ({
        id: `pulsar ${text}`,
        kind: "topic on Pulsar",
        label: text.split("/").at(-1),
        href: linkTo("topics"),
        state: "",
        note: "on Pulsar"
      }))
    ],
    edges: rules.flatMap(({ from, id, to }) => [
      { from: side(from), to: id, kind: "is mirrored by", label: "" },
      { from: id, to: side(to), kind: "mirrors to", label: "" }
    ])
  }
}
/** Relays and subscriptions: what carries topics on. */
const carrierParts = ({ application, status }) => {
  const relays = status.relays.map(({ halted, halted_streams: streams, lag, oldest_ms: age, target }) => ({
    id: `relay ${target}`,
    kind: "relay",
    label: target === "embedded" ? "relay to the log" : `relay to ${target}`,
    href: linkTo("topics"),
    state: halted !== null ? "bad" : "",
    reason: halted ?? undefined,
    note:
      halted !== null
        ? `${counted(streams, "stream")} halted`
        : waitingText(lag, age ?? 0, lag === 1 ? "message" : "messages") || "nothing waits"
  }))
  const subscriptions = status.subscriptions.map(({ consumed, subscription, topic, undelivered, unacknowledged }) => ({
    id: `subscription ${topic} ${subscription}`,
    kind: "subscription",
    label: subscription,
    href: linkTo(["topics", topic]),
    state: !consumed && undelivered > 0 ? "warn" : "",
    reason: !consumed && undelivered > 0 ? "no consumer is connected" : undefined,
    note: labelOf(consumed ? "connected" : "no consumer", `${number(undelivered + unacknowledged)} to deliver`)
  }))
  return {
    nodes: [...relays, ...subscriptions],
    edges: [
      ...application.topics.flatMap(({ dead_letters: isDead, name, relays: targets }) =>
        isDead
          ? []
          : targets.map((target) => ({
              from: `topic ${name}`,
              to: `relay ${target}`,
              kind: "is published by",
              label: ""
            }))
      ),
      ...status.subscriptions.map(({ subscription, topic, undelivered }) => ({
        from: `topic ${topic}`,
        to: `subscription ${topic} ${subscription}`,
        kind: "is delivered to",
        label: "",
        waits: waitingText(undelivered, 0)
      }))
    ]
  }
}

/** `{ nodes, edges }` of a system. `rates` are those of `countersOf`, by name. */
export const partsOf = ({ application, rates, status, topics, windows }) => {
  const nodes = new Map()
  const edges = []
  const add = (parts) => {
    for (const one of parts.nodes) if (!nodes.has(one.id)) nodes.set(one.id, one)
    edges.push(...parts.edges)
  }
  add(topicParts({ application, topics }))
  const builds = Map.groupBy(
    status.projections.filter(({ removed }) => !removed),
    ({ name, version }) => `${name} ${version}`
  )
  const roles = new Map(status.builds.map(({ build, name, role }) => [`${name} ${build}`, role]))
  for (const [key, rows] of builds) {
    const role = roles.get(key) ?? (rows[0].mode === "follower" ? "follower" : "live")
    const declared = application.projections.find(({ name }) => name === rows[0].name)
    add(buildParts(declared, rows, { isLive: role === "live", role, rates, status }))
  }
  for (const one of application.projections) {
    if (!nodes.has(`projection ${one.name}`))
      add({
        nodes: [
          {
            id: `projection ${one.name}`,
            kind: `${one.lifecycle} projection`,
            label: one.name,
            href: linkTo(["versions", one.name]),
            state: "",
            note: one.lifecycle === "live" ? "folded when it is read" : "no build yet"
          }
        ],
        edges: one.reads.map((topic) => ({
          from: `topic ${topic}`,
          to: `projection ${one.name}`,
          kind: "reads",
          label: ""
        }))
      })
    add(outputParts(one, windows, rates))
  }
  const beside = [...nodes.keys()].find((id) => id.startsWith("table "))
  for (const name of application.views)
    add({
      nodes: [
        {
          id: `table ${name}`,
          kind: "view",
          label: name,
          href: linkTo(["tables", name]),
          note: "view",
          state: "",
          beside
        }
      ],
      edges: []
    })
  add(carrierParts({ application, status }))
  add(bridgeParts(application))
  return { nodes: [...nodes.values()], edges }
}
