/** Session storage of the access token, and of the conversation during a reload. */

const TOKEN_KEY = "talkinghead.token";
const CONVERSATION_KEY = "talkinghead.conversation";

/** Move the token from the address (`#token=`) into the storage of the tab, and return it. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    saveToken(token);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(TOKEN_KEY);
}

export function saveToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/**
 * Store a conversation for a reload. Call this only when the page is unloaded, so that a duplicate
 * of the tab does not take over its session.
 *
 * @param {{id: string, choices: object, messages: object[]}} conversation
 */
export function saveConversation(conversation) {
  sessionStorage.setItem(CONVERSATION_KEY, JSON.stringify(conversation));
}

/** Remove and return the stored conversation. @returns {?object} Null if there is none. */
export function takeConversation() {
  const conversation = sessionStorage.getItem(CONVERSATION_KEY);
  sessionStorage.removeItem(CONVERSATION_KEY);
  return JSON.parse(conversation);
}
