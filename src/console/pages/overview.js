// The overview: what the application is, what comes in and goes out, how long it takes, what is wrong, and the command that fixes it.
import { together, useGet } from "../lib/api.js"
import { endOf, oldest, recordsOf, sum } from "../lib/counts.js"
import { counted, duration, number } from "../lib/format.js"
import { html, useEffect, useMemo, useState } from "../lib/html.js"
import { useLack } from "../lib/may.js"
import { useRates } from "../lib/rates.js"
import { linkTo } from "../lib/router.js"
import { listed, sentenceOf } from "../lib/sentence.js"
import { Chart } from "../parts/chart.js"
import { Command, Empty, Figure, Loaded, Problem, Table, Tag } from "../parts/common.js"
import { Findings } from "../parts/findings.js"
import { Newest } from "../parts/newest.js"

const isLive = ({ mode, removed }) => mode !== "follower" && !removed

/** The topics by who writes them: clients and commands, or projections. Positions of the latter count also what only announces a time. */
const byWriter = (topics, application) => {
  const kinds = new Map(application.topics.map((topic) => [topic.name, topic]))
  const of = ({ name }) => kinds.get(name)
  return {
    input: topics.filter((one) => ["events", "aggregate"].includes(of(one)?.kind)),
    output: topics.filter((one) => of(one)?.kind === "derived" && !of(one).dead_letters)
  }
}

const Problems = ({ notices, problems }) =>
  html` ${
    problems.length > 0 &&
    html`<section class="card" aria-label="Problems">
      <h2>${problems.length === 1 ? "A problem" : `${number(problems.length)} problems`}</h2>
      <${Findings} findings=${problems} kind="problem" />
    </section>`
  }
  ${
    notices.length > 0 &&
    html`<details class="card">
      <summary>
        ${counted(notices.length, "thing")} to know, which ${notices.length === 1 ? "is" : "are"} no problem
      </summary>
      <${Findings} findings=${notices} kind="note-box" />
    </details>`
  }`

/** The projections, with what each has still to do, and how long its newest record waited. */
const byProjection = ({ delays, paused, projections }) => {
  const found = new Map()
  for (const row of projections.filter(isLive)) {
    const one = found.get(row.name) ?? { name: row.name, version: row.version, lag: 0, ages: [], halted: 0, waiting: 0 }
    one.lag += row.lag ?? 0
    one.ages.push(row.oldest_ms)
    one.halted += row.halted === null ? 0 : 1
    one.waiting += row.waiting === null ? 0 : 1
    one.isPaused = paused.some(({ projection }) => projection === row.name)
    found.set(row.name, one)
  }
  for (const one of found.values()) {
    one.oldest = oldest(one.ages)
    one.delay = oldest(delays.projections.flatMap((own) => (own.projection === one.name ? [own.projection_ms] : [])))
  }
  return [...found.values()]
}
const State = ({ of: { halted, isPaused, waiting } }) =>
  halted > 0
    ? html`<${Tag} kind="bad">${counted(halted, "partition")} halted<//>`
    : isPaused
      ? html`<${Tag} kind="warn">paused<//>`
      : waiting > 0
        ? html`<${Tag} kind="warn">${counted(waiting, "partition")} tried again<//>`
        : html`<${Tag} kind="good">running<//>`
const columns = [
  {
    name: "name",
    label: "projection",
    cell: ({ name, version }) =>
      html`<a href=${linkTo(["versions", name])}>${name}</a> <span class="quiet">build ${version}</span>`
  },
  { name: "lag", label: "waiting", numeric: true, cell: ({ lag }) => number(lag) },
  { name: "oldest", label: "the oldest for", numeric: true, cell: ({ oldest: age }) => duration(age) },
  { name: "delay", label: "newest took", numeric: true, cell: ({ delay }) => duration(delay) },
  { name: "state", cell: (one) => html`<${State} of=${one} />` }
]

const day = 86_400_000
/** How long an event needs, by its parts: what waits now, or else what was processed last. */
const partsOf = (status, input) => {
  const names = new Set(input.map(({ name }) => name))
  const { projections: done, relays: published } = status.delays
  const newest = done.filter(({ source_ms: ms, topic }) => ms !== null && names.has(topic))
  const source = newest.toSorted((a, b) => a.ago_ms - b.ago_ms)[0]
  const live = status.projections.filter(isLive)
  const waits = {
    projection: oldest(live.map(({ oldest_ms: ms }) => ms)),
    relay: oldest(status.relays.map(({ oldest_ms: ms }) => ms))
  }
  const slowest = done.toSorted((a, b) => b.projection_ms - a.projection_ms)[0]
  return {
    source: source?.source_ms,
    projection: waits.projection ?? slowest?.projection_ms,
    slowest: slowest?.projection,
    relay: waits.relay ?? oldest(published.map(({ relay_ms: ms }) => ms)),
    waits,
    waiting: { records: sum(live.map(({ lag }) => lag ?? 0)), messages: sum(status.relays.map(({ lag }) => lag ?? 0)) }
  }
}
const Step = ({ href, label, note, value, wide }) =>
  html`<li class=${wide ? "total" : ""}>
    <span class="label">${href ? html`<a href=${href}>${label}</a>` : label}</span>
    <span class="value">${value}</span>
    <span class="note">${note}</span>
  </li>`
/** What waits, or that nothing does. */
const waitingNote = (count, noun, age) =>
  count === 0
    ? "nothing waits"
    : `${counted(count, noun)} ${count === 1 ? "waits" : "wait"}${age === undefined ? "" : `, the oldest for ${duration(age)}`}`
const Delay = ({ hasRelays, parts }) => {
  const { projection, relay, slowest, source, waiting, waits } = parts
  const isReplay = source !== undefined && source > day
  const known = [isReplay ? undefined : source, projection, hasRelays ? relay : undefined].filter(
    (ms) => ms !== undefined
  )
  return html`<section class="card">
    <h2>From an event to its reader</h2>
    <ol class="steps">
      <${Step}
        label="Source"
        href=${linkTo("topics")}
        value=${source === undefined ? "–" : isReplay ? "a replay" : duration(source)}
        note=${isReplay ? `of events that are ${duration(source)} old` : "from when it happened until the log has it"}
      />
      <${Step}
        label="Projection"
        href=${linkTo("pipeline")}
        value=${duration(projection)}
        note=${`${waits.projection === undefined && slowest ? `until the row of ${slowest} is there` : "until its rows are there"}; ${waitingNote(waiting.records, "record", waits.projection)}`}
      />
      ${
        hasRelays &&
        html`<${Step}
          label="Relay"
          href=${linkTo("pipeline")}
          value=${duration(relay)}
          note=${`from the row until the message is published; ${waitingNote(waiting.messages, "message", waits.relay)}`}
        />`
      }
      <${Step}
        label="Together"
        value=${known.length === 0 ? "–" : duration(sum(known))}
        note=${isReplay ? "without the age of the events" : "end to end"}
        wide
      />
    </ol>
  </section>`
}

const failuresOf = ({ processes }) => processes.filter(({ running }) => running).flatMap(({ failing }) => failing)
/** What is tried again: of the processes, and timers and commands of policies. */
const failingText = (failures, timers) =>
  [failures[0] && `${failures[0].what} fails`, timers > 0 && counted(timers, "timer or command", "timers and commands")]
    .filter(Boolean)
    .join("; ") || "nothing is tried again"
/** Dead letters that are counted apart, as `millrace status` does: a live build has its own for the same events. */
const followersText = (count) => `${number(count)} of builds that follow`
const lettersText = (letters, followed) =>
  letters === 0
    ? `${counted(followed, "dead letter")} of builds that follow`
    : counted(letters, "dead letter") + (followed > 0 ? `, and ${followersText(followed)}` : "")
/** The status before it was read, which takes longer than the rest. */
const unread = {
  delays: { projections: [], relays: [] },
  notices: [],
  paused: [],
  problems: [],
  processes: [],
  projections: [],
  relays: [],
  subscriptions: [],
  timers: { waiting: 0, due: 0, failing: 0 },
  dead_letters: 0,
  follower_dead_letters: 0,
  parked_messages: 0
}
const Figures = ({ found, rates, records }) => {
  const isRead = found !== unread
  const { dead_letters: ofProjections, follower_dead_letters: followed, subscriptions, timers } = found
  const failures = failuresOf(found)
  const letters = ofProjections + found.parked_messages
  const undelivered = sum(subscriptions.map((one) => one.undelivered))
  return html`<div class="figures">
    <${Figure} label="Events" value=${records} href=${linkTo("topics")} note="of clients and commands in the log" />
    <${Figure} label="Events in" value=${rates.last.in} unit="a second" href=${linkTo("topics")} note="as they come" />
    <${Figure}
      label="Processed"
      value=${rates.last.processed}
      unit="a second"
      href=${linkTo("pipeline")}
      note="by all projections"
    />
    <${Figure}
      label="Out"
      value=${rates.last.out}
      unit="a second"
      href=${linkTo("pipeline")}
      note="published to topics"
    />
    <${Figure}
      label="Failing now"
      value=${isRead ? failures.length + timers.failing : undefined}
      href=${failures.length === 0 && timers.failing > 0 ? linkTo("timers", { failing: "true" }) : undefined}
      note=${isRead && failingText(failures, timers.failing)}
      kind=${failures.length > 0 ? "bad" : timers.failing > 0 ? "warn" : ""}
    />
    <${Figure}
      label="Dead letters"
      value=${isRead ? letters : undefined}
      href=${linkTo("dead-letters")}
      kind=${letters + followed > 0 ? "warn" : ""}
      note=${isRead && (letters > 0 ? "wait for a decision" : followed > 0 ? "of live builds" : "none is open") + (followed > 0 ? `; and ${followersText(followed)}` : "")}
    />
    ${
      timers.waiting + timers.due > 0 &&
      html`<${Figure}
        label="Timers"
        value=${timers.waiting + timers.due}
        href=${linkTo("timers")}
        note=${`${number(timers.due)} due, ${number(timers.failing)} failing`}
        kind=${timers.failing > 0 ? "warn" : ""}
      />`
    }
    ${
      subscriptions.length > 0 &&
      html`<${Figure}
        label="Not delivered"
        value=${undelivered}
        href=${linkTo("pipeline")}
        note=${`to ${counted(subscriptions.length, "subscription")}`}
      />`
    }
  </div>`
}
const Rates = ({ rates: { last, series, times } }) =>
  html`<section class="card">
    <h2>Events a second</h2>
    ${times.length === 0 && html`<p class="quiet">The first point is there in some seconds.</p>`}
    <${Chart}
      times=${times}
      series=${[
        { label: "in", values: series.in ?? [] },
        { label: "processed", values: series.processed ?? [] },
        { label: "out", values: series.out ?? [] }
      ]}
      summary=${`Events a second in the last four minutes; now ${number(last.in)} in, ${number(last.processed)} processed and ${number(last.out)} out`}
    />
  </section>`

/** What there is to do while nothing has come in. */
const Nothing = ({ application }) => {
  const source = application.topics.find(({ kind }) => kind === "events")
  const aggregate = application.aggregates[0]
  return html`<${Empty} title="Nothing has come in yet">
    ${
      source &&
      html`<p><a href=${linkTo("send", { type: source.types[0] })}>Send an event</a> by a form, or a file of events:</p>
        <${Command} text="npx millrace ingest events.ndjson" />`
    }
    ${aggregate && html`<p><a href=${linkTo(["aggregates", aggregate.name])}>Send a command</a> to ${aggregate.name}.</p>`}
    ${!source && !aggregate && html`<p>Declare a projection or an aggregate in <code>millrace.config.ts</code>.</p>`}
  <//>`
}

/** The topic whose records are shown: alerts, or what is published, or what comes in; and the table that has the same, which has its name without the version. */
const shownOf = ({ input, output }, views) => {
  const topic =
    output.find(({ name }) => name === "alerts.v1") ?? output[0] ?? input.find((one) => recordsOf(one) > 0) ?? input[0]
  const view = views.find(({ kind, name }) => kind === "table" && name === topic?.name.replace(/\.v\d+$/, ""))
  return topic && { name: topic.name, view }
}

const Whole = ({ application, found = unread, topics, views }) => {
  const { input, output } = byWriter(topics, application)
  const status = useMemo(
    () => ({
      at: Date.now() - (found.read_ms_ago ?? 0),
      counters: {
        processed: sum(found.projections.filter(isLive).map(({ position }) => position)),
        out: sum(found.projections.filter(isLive).map(({ published }) => published))
      }
    }),
    [found]
  )
  const log = useMemo(() => ({ at: Date.now(), counters: { in: sum(input.map(endOf)) } }), [topics])
  const rates = useRates([log, found === unread ? undefined : status])
  const parts = partsOf(found, input)
  const records = sum(input.map(recordsOf))
  const { notices, problems } = found
  const { follower_dead_letters: followed } = found
  const letters = found.dead_letters + found.parked_messages
  const newest = shownOf({ input, output }, views)
  return html`<p class="sentence">
      ${sentenceOf(application, { rate: rates.last.in, records, delay: parts.projection })}${" "}
      ${
        found === unread
          ? ""
          : found.healthy
            ? html`<${Tag} kind="good">healthy<//>`
            : html`<${Tag} kind="bad">unhealthy: ${counted(problems.length, "problem")}<//>`
      }
      ${letters + followed > 0 && html` <a href=${linkTo("dead-letters")}><${Tag} kind="warn">${lettersText(letters, followed)}<//></a>`}
    </p>
    <${Problems} problems=${problems} notices=${notices} />
    <${Figures} found=${found} rates=${rates} records=${records} />
    ${records === 0 && html`<${Nothing} application=${application} />`}
    <${Delay} parts=${parts} hasRelays=${application.topics.some(({ relays }) => relays.length > 0)} />
    <div class="columns">
      <${Rates} rates=${rates} />
      ${newest && html`<${Newest} key=${newest.name} ...${newest} />`}
    </div>
    ${
      found.projections.some(isLive) &&
      html`<section class="card">
        <h2>Projections</h2>
        <${Table}
          stacks
          caption="Projections"
          columns=${columns}
          rows=${byProjection(found)}
          keyOf=${({ name }) => name}
        />
      </section>`
    }
    <${Command} text="npx millrace status --watch" />`
}

/** What a credential sees that may read data, but not the system. */
const Restricted = ({ error }) => {
  const topics = useGet("/v1/topics")
  const views = useGet("/v1/views")
  return html`<${Loaded} of=${topics}>
      ${({ topics: all }) => {
        const types = all.filter(({ written_by: by }) => by.length === 0).flatMap(({ types: own }) => own ?? [])
        const names = views.data?.views.map(({ name }) => name) ?? []
        return html`<p class="sentence">
          This
          application${" "}${types.length > 0 ? `takes ${listed(types)} events` : "has no topics that take events"}${names.length > 0 ? `, and your credential reads ${listed(names)}` : ""}.
        </p>`
      }}
    <//>
    <ul class="plain">
      ${(views.data?.views ?? []).map(({ name }) => html`<li key=${name}><a href=${linkTo(["tables", name])}>${name}</a></li>`)}
    </ul>
    <section class="card">
      <h2>The system</h2>
      <${Problem} error=${error} />
      <p>Rates, delays and problems need a key of the whole system with the scope <code>operate</code>.</p>
    </section>`
}

/** How long two readings are apart: the first two are close, so that there are rates at once. */
const apart = { first: 600, later: 2_000 }

export default () => {
  const [every, setEvery] = useState(apart.first)
  useEffect(() => {
    const timer = setTimeout(() => setEvery(apart.later), 4 * apart.first)
    return () => clearTimeout(timer)
  }, [])
  const lack = useLack()("operate")
  const ask = (path, options) => useGet(lack ? undefined : path, options)
  const status = ask("/v1/operations/status", { every })
  const application = ask("/v1/operations/application")
  const topicList = ask("/v1/operations/topics", { every })
  const views = ask("/v1/views")
  const first = together([application, topicList, views])
  const refused = lack ?? (status.error?.status === 403 && status.error)
  return html`<header class="head"><h1>Overview</h1></header>
    ${
      refused
        ? html`<${Restricted} error=${refused} />`
        : html`<${Loaded} of=${{ ...together([application, topicList, views, status]), data: first.data }}>
            ${([declared, { topics }, { views: shown }]) => html`<${Whole} application=${declared} found=${status.data} topics=${topics} views=${shown} />`}
          <//>`
    }`
}
