"""The Streamlit application: search, explore, corpus and encoders in the browser."""
