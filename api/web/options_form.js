// A form made from the option descriptions of GET /v1/passes; what is left at its default stays out of the spec.

import { h } from "./dom.js";

function sameJson(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

function labelled(option, input) {
  const words = [option.name, option.required ? "(required)" : null].filter(Boolean).join(" ");
  const isCheck = input.type === "checkbox";
  return h("label", { title: option.help, class: isCheck ? "check" : null }, isCheck ? [input, words] : [words, input]);
}

function numberField(option) {
  const input = h("input", { type: "number", step: option.type === "integer" ? 1 : "any", min: option.minimum ?? null,
                             max: option.maximum ?? null, value: option.default ?? "", required: option.required });
  return { element: labelled(option, input), input, value: () => (input.value === "" ? undefined : Number(input.value)) };
}

function textField(option) {
  const input = h("input", { value: option.default ?? "", required: option.required, spellcheck: "false" });
  return { element: labelled(option, input), input, value: () => input.value };
}

function checkField(option) {
  const input = h("input", { type: "checkbox" });
  input.checked = option.default === true;
  return { element: labelled(option, input), input, value: () => input.checked };
}

function choiceField(option) {
  const input = h("select", {}, option.choices.map((choice) => h("option", { value: choice }, choice)));
  input.value = option.default ?? option.choices[0];
  return { element: labelled(option, input), input, value: () => input.value };
}

// Names with commas between.
function listField(option) {
  const input = h("input", { value: (option.default ?? []).join(", "), spellcheck: "false", placeholder: "a, b" });
  const value = () => input.value.split(",").map((word) => word.trim()).filter(Boolean);
  return { element: labelled(option, input), input, value };
}

// Rows of options of their own, added and taken away.
function rowsField(option) {
  const rows = [];
  const place = h("div", {});
  const add = () => {
    const form = optionsForm(option.fields);
    const row = h("div", { class: "row" }, form.element, h("button", { type: "button", onclick: () => {
      rows.splice(rows.indexOf(form), 1);
      row.remove();
    } }, "Remove"));
    rows.push(form);
    place.append(row);
  };
  const button = h("button", { type: "button", title: option.help, onclick: add }, `Add to ${option.name}`);
  return { element: h("div", {}, place, button), input: button, value: () => rows.map((form) => form.value()),
           at: ([index, ...path]) => rows[index]?.at(path) };
}

const kFields = { number: numberField, integer: numberField, boolean: checkField, choice: choiceField, string: textField,
                  strings: listField, objects: rowsField };

// {element, value(), at(path)}: `at` is the input that a JSON pointer's names lead to, or undefined.
export function optionsForm(options) {
  const fields = options.map((option) => ({ option, field: (kFields[option.type] ?? textField)(option) }));
  const value = () => {
    const given = {};
    for (const { option, field } of fields) {
      const chosen = field.value();
      if (chosen === undefined) continue;
      if (option.required || !sameJson(chosen, option.default)) given[option.name] = chosen;
    }
    return given;
  };
  const at = ([name, ...path]) => {
    const found = fields.find(({ option }) => option.name === name);
    return found && (path.length > 0 ? found.field.at?.(path) ?? found.field.input : found.field.input);
  };
  const [few, more] = [fields.slice(0, 4), fields.slice(4)];
  const element = h("div", {}, h("div", { class: "row" }, few.map(({ field }) => field.element)),
    more.length === 0 ? null : h("details", {}, h("summary", {}, `${more.length} more options`),
                                 h("div", { class: "row" }, more.map(({ field }) => field.element))));
  return { element, value, at };
}
