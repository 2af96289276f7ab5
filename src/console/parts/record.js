// One record of a topic: its fields, headers, its value decoded and raw, and the requests that stand for it.
import { curlOf, send, withQuery } from "../lib/api.js"
import { bytes, shellWord } from "../lib/format.js"
import { html, useEffect, useState } from "../lib/html.js"
import { rawField } from "../lib/raw.js"
import { recordsPath } from "../lib/records.js"
import { linkTo } from "../lib/router.js"
import { Command, Data, Dialog, Json, Problem, Time } from "./common.js"

/** A key as a link to everything of it; with `most`, of a longer one the beginning. */
export const KeyLink = ({ most = Infinity, value }) =>
  value === null || value === undefined
    ? html`<span class="quiet">none</span>`
    : html`<a href=${linkTo(["entity", value])}><${Data} value=${value} most=${most} /></a>`

const Pairs = ({ pairs }) =>
  html`<dl class="pairs">
    ${pairs.map(
      ([name, value]) =>
        html`<dt key=${name}>${name}</dt>
          <dd>${value}</dd>`
    )}
  </dl>`
const shown = ["event_time", "appended_at", "event_id", "tenant", "trace_id", "traceparent", "schema_version"]
const Facts = ({ record }) =>
  html`<${Pairs}
    pairs=${[
      ["key", html`<${KeyLink} value=${record.key} />`],
      ...shown
        .filter((name) => record[name] !== undefined)
        .map((name) => [
          name.replaceAll("_", " "),
          name.endsWith("_time") || name.endsWith("_at") ? html`<${Time} at=${record[name]} />` : String(record[name])
        ])
    ]}
  />`
const RecordValue = ({ raw, value }) => {
  const [isRaw, setRaw] = useState(false)
  return html`<div class="row spread">
      <h3>Value</h3>
      <span class="row"
        ><span class="quiet">${bytes(new Blob([raw]).size)}</span>
        <button type="button" class="small" aria-pressed=${isRaw} onClick=${() => setRaw(!isRaw)}>
          ${isRaw ? "Decoded" : "Raw"}
        </button></span
      >
    </div>
    ${value === null && html`<p>It has no value: it deletes the key.</p>`}
    <${Json} value=${isRaw ? raw : value} />`
}
const Requests = ({ path, raw, record, topic }) => {
  const { key, partition, position, value } = record
  const body = value === null ? JSON.stringify({ key, value }) : raw
  const posts = withQuery("/v1/events", { topic: topic.name })
  const tail = `npx millrace tail ${shellWord(topic.name)} --partition ${partition} --from ${partition}:${position}`
  return html`<p class="quiet">Fetch it:</p>
    <${Command} text=${`${tail} --max 1 --json`} />
    <${Command} label="request" text=${curlOf("GET", path)} />
    ${
      topic.written_by.length === 0
        ? html`<p class="quiet">Send its value again, as a new record:</p>
            <${Command} label="request" text=${curlOf("POST", posts, { body })} />`
        : html`<p class="quiet">
            ${
              topic.aggregate && key !== null
                ? html`Commands append its events:${" "}
                    <a href=${linkTo(["aggregates", topic.name, key])}><${Data} value=${key} /></a>.`
                : `${topic.written_by.join(", ")} writes this topic.`
            }
          </p>`
    }
    <p class="quiet">${key === null ? "Follow its partition from here:" : "Follow its key from here:"}</p>
    <${Command} text=${`${tail}${key === null ? "" : ` --key ${shellWord(key)}`}`} />`
}

/** The record with its raw value; rejects with an `ApiError` if there is none at the position. */
const read = async (path, topic, partition, position) => {
  const { body, text } = await send("GET", path, { isText: true })
  const [record] = body.records
  if (String(record?.position) === position) return { record, raw: rawField(rawField(text, "records"), "value", 1) }
  return {
    error: {
      message: `${topic}, partition ${partition}, has no record at position ${position}`,
      advice: "look at the records next to it: positions of compacted records, and of Millrace's own, are in no page"
    }
  }
}
/** A dialog with the record at a position of a partition. `topic`: as the list of topics has it. */
export const RecordDialog = ({ onClose, partition, position, topic }) => {
  const path = recordsPath(topic.name, {
    partition,
    from: position,
    limit: "1"
  })
  const [state, setState] = useState({})
  useEffect(() => {
    read(path, topic.name, partition, position).then(setState, (error) => setState({ error }))
  }, [path])
  const { error, raw, record } = state
  const headers = Object.entries(record?.headers ?? {})
  return html`<${Dialog} title=${`${topic.name}, partition ${partition}, position ${position}`} onClose=${onClose}>
    <${Problem} error=${error} />
    ${
      record === undefined
        ? error === undefined && html`<p class="quiet" role="status">Loading…</p>`
        : html`<${Facts} record=${record} />
            <h3>Headers</h3>
            ${headers.length === 0 ? html`<p class="quiet">It has none.</p>` : html`<${Pairs} pairs=${headers} />`}
            <${RecordValue} value=${record.value} raw=${raw} />
            <${Requests} record=${record} raw=${raw} topic=${topic} path=${path} />`
    }
  <//>`
}
