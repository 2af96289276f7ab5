// Any topic or view as it changes: filtered by the server, sampled where it is fast, and paused without losing its position.
import { curlOf, useGet, withQuery } from "../lib/api.js"
import { counted, number, shellWord } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { mostPaused, useLive } from "../lib/live-list.js"
import { firstTopic } from "../lib/records.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Loaded, NoSuch, Problem, Tag } from "../parts/common.js"
import { FilterForm } from "../parts/filter-form.js"
import { LiveItems } from "../parts/live-list.js"

const reserved = new Set(["topic", "view", "key", "tenant", "from"])
const kinds = { open: "good", connecting: "quiet", waiting: "warn", refused: "bad" }
const texts = {
  open: "following",
  connecting: "connecting",
  waiting: "the connection is lost; it is opened again",
  refused: "refused"
}

const rateText = (noun, rate, total, left) =>
  `${counted(Math.round(rate), noun)} a second, ${number(total)} since the page was opened` +
  (left > 0 ? `, ${number(left)} of them not listed` : "")
/** The state of the connection, the rate, and whether the stream is behind. */
const Status = ({ hasRowsFirst, isPaused, noun, view: { isLive, left, missed = 0, rate, state, total, waiting } }) =>
  html`<div class="row" role="status">
    <${Tag} kind=${isPaused ? "quiet" : kinds[state.state]}>${isPaused ? "paused" : texts[state.state]}<//>
    ${
      isPaused
        ? html`<span
            >${missed >= mostPaused ? `More than ${number(mostPaused)} ${noun}s` : counted(missed, noun)} came
            meanwhile. Go on to see them.</span
          >`
        : html`<span class="quiet">${rateText(noun, rate, total, left)}</span>`
    }
    ${!isPaused && waiting >= 1_000 && waiting > rate * 2 && html`<${Tag} kind="warn">behind: ${counted(waiting, "position")} wait<//>`}
    ${hasRowsFirst && !isLive && state.state === "open" && html`<${Tag}>the rows that there are come first<//>`}
  </div>`
const Following = ({ hasRowsFirst, isPaused, path, source }) => {
  const view = useLive(path, source, isPaused)
  const { ended, isFast, isYoung, items, listed, rate, state } = view
  const noun = source.kind === "topic" ? "record" : "change"
  return html`<${Status} view=${view} noun=${noun} isPaused=${isPaused} hasRowsFirst=${hasRowsFirst} />
    ${
      !isPaused &&
      rate > listed * 1.2 + 1 &&
      html`<p class="note-box">
        The list is a sample: it has about ${number(Math.round(listed))} of ${number(Math.round(rate))} a second. A
        filter narrows it down.
      </p>`
    }
    ${ended && state.state !== "open" && html`<p class="note-box">The server ended the stream: ${ended.message}</p>`}
    <${Problem} error=${state.error} />
    ${state.error?.code === "position_gone" && html`<p>Reload the page to go on with what comes now.</p>`}
    ${
      items.length > 0
        ? html`<${LiveItems} items=${items} source=${source} isFast=${isFast} />`
        : isYoung && (state.state === "open" || state.state === "connecting")
          ? html`<p class="quiet">Loading…</p>`
          : state.state !== "refused" &&
            html`<${Empty} title=${`No ${noun} yet`}
              ><p>They appear here as they come. Choose “earliest” to see what there is already, or send an event.</p>
              <p class="row"><a href=${linkTo("send")}>Send an event</a></p><//
            >`
    }`
}

/** What is followed, by the address; without one, the first topic that events come in by. */
const sourceOf = ({ topic, view }, topics, views) => {
  const found = views.find(({ name }) => name === view)
  if (found !== undefined) return { kind: "view", name: found.name, key: found.key, columns: found.columns }
  const name = topic ?? firstTopic(topics)?.name
  return name === undefined ? undefined : { kind: "topic", name, key: [], columns: undefined }
}
const pathOf = (source, { from, key, tenant }, filters) =>
  source.kind === "topic"
    ? withQuery(`/v1/topics/${encodeURIComponent(source.name)}/stream`, {
        envelope: "record",
        key,
        tenant,
        from,
        ...filters
      })
    : withQuery(`/v1/views/${encodeURIComponent(source.name)}/changes`, { from: from ?? "latest", ...filters })
const tailOf = (source, { from, key, tenant }) => {
  const flags = [
    key && `--key ${shellWord(key)}`,
    tenant && `--tenant ${shellWord(tenant)}`,
    (from || source.kind === "view") && `--from ${shellWord(from ?? "latest")}`
  ]
  const name = shellWord(source.kind === "topic" ? source.name : `view:${source.name}`)
  return ["npx millrace tail", name, ...flags.filter(Boolean)].join(" ")
}

const Sources = ({ choose, source, topics, views }) =>
  html`<${Field} label="Topic or table"
    ><select value=${`${source.kind} ${source.name}`} onChange=${choose}>
      <optgroup label="Topics">
        ${topics.map(({ name }) => html`<option key=${name} value=${`topic ${name}`}>${name}</option>`)}
      </optgroup>
      <optgroup label="Tables and windows">
        ${views.map(({ name }) => html`<option key=${name} value=${`view ${name}`}>${name}</option>`)}
      </optgroup>
    </select><//
  >`
const From = ({ from = "latest", onChange }) =>
  html`<${Field} label="From"
    ><select value=${from} onChange=${(event) => onChange(event.target.value)}>
      ${[...new Set(["latest", "earliest", from])].map((one) => html`<option key=${one}>${one}</option>`)}
    </select><//
  >`
const Page = ({ query, topics, views }) => {
  const [isPaused, setPaused] = useState(false)
  const missing = [
    ["table", "view", query.view, views],
    ["topic", "topic", query.topic, topics]
  ].find(([, , name, all]) => name !== undefined && !all.some((one) => one.name === name))
  if (missing !== undefined) {
    const [noun, parameter, name, all] = missing
    return html`<${NoSuch}
      noun=${noun}
      name=${name}
      links=${all.map((one) => ({ name: one.name, href: linkTo("live", { [parameter]: one.name }) }))}
    />`
  }
  const source = sourceOf(query, topics, views)
  if (source === undefined)
    return html`<${Empty} title="The application has no topics"
      ><p>A projection reads one, and an aggregate has one: declare it in the application.</p><//
    >`
  const isTopic = source.kind === "topic"
  const filters = Object.entries(query).filter(([name]) => !reserved.has(name))
  const set = (changes) => {
    setPaused(false)
    go(linkTo("live", { [source.kind]: source.name, ...query, ...changes }), { replace: true })
  }
  const choose = (event) => {
    const [kind, ...name] = event.target.value.split(" ")
    setPaused(false)
    go(linkTo("live", { [kind]: name.join(" "), from: query.from }))
  }
  const path = pathOf(source, query, Object.fromEntries(filters))
  const field = (name, label) =>
    html`<${Field} label=${label}
      ><input value=${query[name] ?? ""} onChange=${(event) => set({ [name]: event.target.value })}
    /><//>`
  return html`<div class="row end">
      <${Sources} choose=${choose} source=${source} topics=${topics} views=${views} />
      ${isTopic && field("key", "Key")} ${isTopic && field("tenant", "Tenant")}
      <${From} from=${query.from} onChange=${(from) => set({ from })} />
      <button
        type="button"
        class=${isPaused ? "primary" : ""}
        aria-pressed=${isPaused}
        onClick=${() => setPaused(!isPaused)}
      >
        ${isPaused ? "Go on" : "Pause"}
      </button>
    </div>
    <${FilterForm} columns=${source.columns} prefix=${isTopic ? "value." : ""} filters=${filters} set=${set} />
    <section class="card">
      <${Following}
        key=${path}
        path=${path}
        source=${source}
        isPaused=${isPaused}
        hasRowsFirst=${!isTopic && query.from === "earliest"}
      />
    </section>
    <${Command} text=${tailOf(source, query)} />
    <${Command} label="request" text=${`${curlOf("GET", path)} -N`} />`
}

export default ({ query }) => {
  const topics = useGet("/v1/topics")
  const views = useGet("/v1/views")
  return html`<header class="head"><h1>Live</h1></header>
    <p class="lead">The records of a topic, or the changes of a table or window, as they come: the newest first.</p>
    <${Loaded} of=${query.view === undefined || views.data !== undefined ? topics : views}>
      ${() =>
        topics.data &&
        html`<${Page}
          query=${query}
          topics=${topics.data.topics}
          views=${(views.data?.views ?? []).filter(({ kind }) => kind !== "view")}
        />`}
    <//>`
}
