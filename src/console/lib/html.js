// Preact with tagged templates: what every part of the console is made with. Text in templates becomes text nodes, never markup.
import { h } from "preact"
import htm from "htm"
import { visible } from "./format.js"

export { Fragment, render } from "preact"
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks"
/** Texts are shown so that each character is seen. Those of an `option` stay as they are, since they are its value. */
const shown = (type, props, ...children) =>
  h(
    type,
    props,
    ...(type === "option" ? children : children.map((one) => (typeof one === "string" ? visible(one) : one)))
  )
export const html = htm.bind(shown)
